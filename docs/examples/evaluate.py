"""Evaluates a trained model and writes the report: log/evaluation/report.html. After fine_tune.py."""

from torchreid_ptl.runs import evaluate

data = {"targets": ["drawn_pedestrians_tiny"], "height": 128, "width": 64}
engine = evaluate("osnet_x0_25_ptl", "log/fine_tune/model/model-best.pth.tar", data=data)
print(engine.results["drawn_pedestrians_tiny"].mAP)
