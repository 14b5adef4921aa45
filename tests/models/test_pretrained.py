"""ImageNet weights: from the disk, from a server, or an error that helps."""

import http.server
import os
import sys
import threading

import pytest
import torch
import torchreid

from torchreid_ptl import host
from torchreid_ptl.models import PretrainedWeightsError

RESNET18 = "resnet18-5c106cde.pth"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch"


@pytest.fixture
def plain_weights():
    torch.manual_seed(5)
    return torchreid.models.build_model("resnet18", num_classes=1000, pretrained=False, use_gpu=False).state_dict()


def urls_of(name):
    return sys.modules[host.models()[name].__module__].model_urls


def nowhere(name, monkeypatch):
    """Points a model's address at a port where nobody listens."""
    file = urls_of(name)[name].rpartition("/")[2]
    monkeypatch.setitem(urls_of(name), name, f"http://127.0.0.1:9/{file}")
    return file


def test_offline_names_the_file_and_its_place(home, monkeypatch):
    file = nowhere("resnet18", monkeypatch)
    with pytest.raises(PretrainedWeightsError) as caught:
        torchreid.models.build_model("resnet18_ptl", num_classes=2)
    message = str(caught.value)
    assert str(home / "hub" / "checkpoints" / file) in message
    assert f"Download http://127.0.0.1:9/{file}" in message
    assert "pretrained=False" in message


def test_offline_osnet_names_its_own_folder(home, monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("gdown.download", download)
    with pytest.raises(PretrainedWeightsError, match=r"checkpoints/osnet_x0_25_imagenet\.pth is not there"):
        torchreid.models.build_model("osnet_x0_25_ptl", num_classes=2)


def test_a_placed_file_is_used(home, plain_weights):
    place = home / "hub" / "checkpoints" / urls_of("resnet18")["resnet18"].rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save(plain_weights, place)
    model = torchreid.models.build_model("resnet18_ptl", num_classes=2)
    assert torch.equal(model.backbone.layer4[1].conv2.weight, plain_weights["layer4.1.conv2.weight"])


def test_a_torn_file_is_named(home, monkeypatch):
    file = nowhere("resnet18", monkeypatch)
    place = home / "hub" / "checkpoints" / file
    place.parent.mkdir(parents=True)
    place.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(PretrainedWeightsError, match="is there but cannot be read; delete it"):
        torchreid.models.build_model("resnet18_ptl", num_classes=2)


def test_downloaded_from_a_server(home, plain_weights, tmp_path, monkeypatch):
    folder = tmp_path / "www"
    folder.mkdir()
    torch.save(plain_weights, folder / "weights.pth")
    handler = type(
        "Handler",
        (http.server.SimpleHTTPRequestHandler,),
        {
            "__init__": lambda self, *a, **k: http.server.SimpleHTTPRequestHandler.__init__(
                self, *a, directory=str(folder), **k
            ),
            "log_message": lambda *_: None,
        },
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/weights.pth"
        monkeypatch.setitem(urls_of("resnet18"), "resnet18", url)
        model = torchreid.models.build_model("resnet18_ptl", num_classes=2)
        server.shutdown()
    assert torch.equal(model.backbone.conv1.weight, plain_weights["conv1.weight"])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("densenet161", "densenet161-"),
        ("densenet121_fc512", "densenet121-"),
        ("resnet50_ibn_a", "resnet50-"),
        ("resnet50_fc512", "resnet50-"),
        ("se_resnet50_fc512", "se_resnet50-"),
        ("osnet_ain_x1_0", "osnet_ain_x1_0_imagenet.pth"),
        ("shufflenet_v2_x1_0", "shufflenetv2_x1-"),
    ],
)
def test_sources_are_known(name, file):
    url, path = host.pretrained_source(host.models()[name])
    assert url.startswith("http")
    assert path.name.startswith(file)


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def placed(home, name):
    """Where the ImageNet weights of a model are looked for."""
    place = host.pretrained_source(host.models()[name])[1]
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


@pytest.mark.parametrize("name", ["resnet18", "osnet_x0_25", "squeezenet1_0"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_a_hostile_file_is_not_run(home, tmp_path, name, new):
    content = {"conv1.weight": torch.ones(1), "x": Hostile(f"touch {tmp_path / 'witness'}")}
    torch.save(content, placed(home, name), _use_new_zipfile_serialization=new)
    with pytest.raises(host.PretrainedFileError, match="more than tensors and is not read"):
        torchreid.models.build_model(name, 2, use_gpu=False)
    assert not (tmp_path / "witness").exists()


def test_a_hostile_file_is_not_run_for_the_plugins_models(home, tmp_path):
    torch.save({"x": Hostile(f"touch {tmp_path / 'witness'}")}, placed(home, "resnet18"))
    with pytest.raises(PretrainedWeightsError, match="more than tensors and is not read"):
        torchreid.models.build_model("resnet18_ptl", 2, use_gpu=False)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("name", ["resnet18", "osnet_x0_25"])
def test_weights_that_fit_nothing(home, name):
    torch.save({"something.weight": torch.ones(2)}, placed(home, name))
    with pytest.raises(host.PretrainedFileError, match="it fills 0 % of the values of"):
        torchreid.models.build_model(name, 2, use_gpu=False)
    load = torch.load
    assert load.__module__ == "torch.serialization"


def test_every_model_of_the_host_reads_tensors_alone():
    modules = {sys.modules[factory.__module__] for name, factory in host.models().items()}
    readers = [
        getattr(place, name)
        for module in modules
        if module.__name__.startswith(torchreid.models.__name__)
        for place in (module, *(item for item in vars(module).values() if isinstance(item, type)))
        for name in ("init_pretrained_weights", "load_imagenet_weights")
        if name in vars(place)
    ]
    assert len(readers) >= 15
    assert all(hasattr(reader, "__wrapped__") for reader in readers)
