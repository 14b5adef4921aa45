"""Registration with the host."""

import importlib
import subprocess
import sys

import pytest
import torch
import torchreid

import torchreid_ptl
from torchreid_ptl import host


def test_names_are_in_the_hosts_table():
    names = torchreid_ptl.available_models()
    assert len(names) == len(set(names)) > 50
    for expected in (
        "densenet161_ptl",
        "densenet161_ptl_v2",
        "resnet50_ptl",
        "osnet_ain_x1_0_ptl",
        "mgn",
        "mgn_ptl_v2",
    ):
        assert expected in names
    assert set(names) <= set(host.models())


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
        "resnet50_fc512", "se_resnet50", "se_resnet101", "se_resnext50_32x4d", "resnet50_ibn_a", "resnet50_ibn_b",
        "densenet121", "densenet161", "densenet169", "densenet201", "densenet121_fc512", "osnet_x1_0", "osnet_x0_75",
        "osnet_x0_5", "osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0", "osnet_ain_x0_25", "mobilenetv2_x1_0",
        "mobilenetv2_x1_4", "shufflenet_v2_x1_0",
    ],
)  # fmt: skip
def test_every_family_has_both_versions(backbone):
    assert {f"{backbone}_ptl", f"{backbone}_ptl_v2"} <= set(torchreid_ptl.available_models())


def test_engines_losses_and_data_sets_stand_where_users_look():
    assert torchreid.engine.ImagePTLEngine is torchreid_ptl.engines.ImagePTLEngine
    assert issubclass(torchreid.engine.ImageMGNEngine, torchreid.engine.Engine)
    assert torchreid.losses.BatchHardTripletLoss is torchreid_ptl.losses.BatchHardTripletLoss
    assert {"drawn_pedestrians", "drawn_pedestrians_tiny"} <= set(host.image_datasets())


def test_registering_again_is_a_no_op():
    before, available = dict(host.models()), torchreid_ptl.available_models()
    torchreid_ptl.register()
    assert list(host.models()) == list(before)
    assert all(host.models()[name] is factory for name, factory in before.items() if name not in available)
    importlib.reload(sys.modules["torchreid_ptl.registration"]).register()
    assert list(host.models()) == list(before)


def test_build_model_without_num_classes():
    model = torchreid.models.build_model("osnet_x0_25_ptl", pretrained=False)
    assert model.classifier[-1].out_features == 1
    assert model.eval()(torch.rand(2, 3, 64, 32)).shape == (2, 512)


def test_foreign_model_of_the_same_name(foreign_model):
    def mgn(**_):
        raise AssertionError

    host.models().pop("mgn")
    foreign_model("mgn", mgn)
    with pytest.raises(
        host.NameConflictError, match=r"'mgn' is already taken by .*test_foreign_model.*torchreid_ptl\.models"
    ):
        torchreid_ptl.register()


def test_foreign_engine_and_loss_of_the_same_name(monkeypatch):
    class ImagePTLEngine:
        pass

    monkeypatch.setattr(torchreid.engine, "ImagePTLEngine", ImagePTLEngine)
    with pytest.raises(host.NameConflictError, match=r"torchreid\.engine.*test_registration.*torchreid_ptl\.engines"):
        torchreid_ptl.register()


def test_foreign_data_set_of_the_same_name(monkeypatch):
    class Drawn(torchreid.data.ImageDataset):
        pass

    monkeypatch.setitem(host.image_datasets(), "drawn_pedestrians", Drawn)
    with pytest.raises(host.NameConflictError, match="data set 'drawn_pedestrians' is already taken by"):
        torchreid_ptl.register()


def test_import_leaves_out_what_only_some_commands_need():
    code = (
        "import sys, torchreid; before = set(sys.modules); import torchreid_ptl;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before} - {'torchreid_ptl', 'torchreid'}))"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not {"matplotlib", "sklearn", "pandas", "tqdm", "yacs"} & set(eval(out.splitlines()[-1]))


def test_host_version_names_the_layout():
    assert "layout" in host.version()
