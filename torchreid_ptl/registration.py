"""Everything the plugin adds to torchreid, in one place."""

from . import engines, host, losses
from .data.drawn import DrawnPedestrians, TinyDrawnPedestrians
from .data.joined import MARKET_DUKE
from .models import register_models
from .runtime.weights import load_whole

ENGINES = (engines.ImagePTLEngine, engines.ImageMGNEngine, engines.ImageSTDEngine, engines.ImageCompatibleEngine)
LOSSES = (losses.BatchHardTripletLoss, losses.STDLoss, *losses.registered_losses().values())
DATASETS: dict[str, type] = {
    "drawn_pedestrians": DrawnPedestrians,
    "drawn_pedestrians_tiny": TinyDrawnPedestrians,
    "market_duke": MARKET_DUKE,
}


def register() -> None:
    """Adds models, engines, losses and data sets to torchreid; again is a no-op.

    Raises:
        torchreid_ptl.host.NameConflictError: a name is taken; the message names its owner.
    """
    register_models()
    host.default_num_classes()
    host.secure_pretrained_weights()
    host.replace_loading_of_extractor(load_whole)
    for engine in ENGINES:
        host.register_attribute("engine", engine)
    for loss in LOSSES:
        host.register_attribute("losses", loss)
    for name, dataset in DATASETS.items():
        host.register_image_dataset(name, dataset)
