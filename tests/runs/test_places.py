"""Files and folders that cannot be used are named before work starts."""

import os

import pytest

from torchreid_ptl.config.loading import ConfigError
from torchreid_ptl.config.request import configure
from torchreid_ptl.runs.places import check_places, require_writable
from torchreid_ptl.runs.run import Run
from torchreid_ptl.runs.train import train

TINY = "drawn_pedestrians_tiny"
FILES = {
    "model.load_weights": {},
    "model.resume": {},
    "std.teacher_weights": {"loss.name": "std", "std.teacher": "resnet50_ptl"},
    "compat.old_weights": {"loss.name": "compatible", "compat.old": "resnet50"},
    "compat.features": {"loss.name": "compatible"},
    "compat.independent": {"loss.name": "compatible", "compat.old": "resnet50"},
    "compat.old_images": {"loss.name": "compatible", "compat.old": "resnet50"},
}


def places(tmp_path):
    """Folders that cannot be written, by what the message says of them."""
    file, gone = tmp_path / "file", tmp_path / "gone"
    file.write_text("")
    gone.symlink_to(tmp_path / "nothing")
    return {
        str(file): f"{file} is no folder",
        str(file / "log"): f"{file} is no folder",
        str(file / "a" / "b"): f"{file} is no folder",
        str(gone): f"{gone} is a link to nothing",
        "/dev/null": "/dev/null is no folder",
    }


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_read(tmp_path):
    for folder, said in places(tmp_path).items():
        config = configure({"data": {"root": str(tmp_path), "sources": [TINY], "targets": [TINY], "save_dir": folder}})
        with pytest.raises(ConfigError) as caught:
            check_places(config)
        assert str(caught.value).startswith("data.save_dir needs the folder")
        assert said in str(caught.value)


def test_a_run_ends_before_it_writes(tmp_path, tiny_root):
    (tmp_path / "file").write_text("")
    data = {"root": str(tiny_root), "sources": [TINY], "targets": [TINY], "save_dir": str(tmp_path / "file" / "log")}
    with pytest.raises(ConfigError, match=r"data\.save_dir needs the folder .*log, and .*file is no folder"):
        train({"data": data})


def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="compat.bank needs the folder .* is not to be written by you"):
        require_writable("compat.bank", tmp_path / "new")


def test_folders_that_can_be_made(tmp_path):
    require_writable("data.save_dir", tmp_path)
    require_writable("data.save_dir", tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []


def test_the_bank_of_a_compatible_training(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "old.pth").write_text("")
    compat = {"old": "resnet50", "old_weights": str(tmp_path / "old.pth"), "bank": str(tmp_path / "file" / "b.npy")}
    with pytest.raises(ConfigError, match="compat.bank needs the folder .*file is no folder"):
        check_places(configure({"loss": {"name": "compatible"}, "compat": compat}))


@pytest.mark.parametrize("key", FILES)
def test_a_file_that_does_not_exist_is_named_by_its_key(key, tmp_path):
    exists = tmp_path / "there.pth"
    exists.write_text("")
    needed = {name: str(exists) for name in FILES if set(FILES[name].items()) <= set(FILES[key].items())}
    needed.pop("compat.features" if key != "compat.features" else "compat.independent", None)
    asked = {**needed, **FILES[key]}
    asked.pop("model.resume", None)
    for place, said in ((tmp_path / "none.pth", "which does not exist"), (tmp_path, "a folder")):
        config = configure({}, **{**asked, key: str(place)})
        with pytest.raises(FileNotFoundError, match=f"^{key} names .*{said}"):
            check_places(config)
        check_places(config, filled=[key])


def test_a_test_needs_no_files_of_the_training(tmp_path):
    config = configure(
        {"loss": {"name": "std"}, "std": {"teacher": "resnet50_ptl", "teacher_weights": "none.pth"}},
        test={"evaluate": True},
        data={"save_dir": str(tmp_path)},
    )
    check_places(config)


def test_a_run_looks_at_them(tmp_path, tiny_root):
    data = {"root": str(tiny_root), "sources": [TINY], "targets": [TINY], "save_dir": str(tmp_path)}
    with pytest.raises(FileNotFoundError, match="model.load_weights names none.pth, which does not exist"):
        Run.of({"data": data, "model": {"load_weights": "none.pth"}}).check()
