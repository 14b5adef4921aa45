"""Splits are drawn in memory, the same on every machine; nothing is written into a data folder."""

import json
import random
import shutil

import numpy as np
import pytest
from helpers import main
from PIL import Image
from scipy.io import savemat

from torchreid_ptl import host
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.splits import DRAWN, PUBLISHED, Splits


def cuhk01(root):
    folder = root / "cuhk01" / "campus"
    folder.mkdir(parents=True)
    for pid in range(1, 13):
        for k in range(1, 5):
            Image.new("RGB", (8, 16), (20 * pid, 60 * k, 0)).save(folder / f"{pid:04d}{k:03d}.png")


def viper(root):
    for camera, angle in (("cam_a", 45), ("cam_b", 90)):
        folder = root / "viper" / "VIPeR" / camera
        folder.mkdir(parents=True)
        for pid in range(12):
            (folder / f"{pid:03d}_{angle}.bmp").touch()


def ilids(root):
    folder = root / "ilids" / "i-LIDS_Pedestrian" / "Persons"
    folder.mkdir(parents=True)
    for pid in range(1, 120):
        for k in range(1, 5):
            (folder / f"{pid:04d}{k:03d}.jpg").touch()


def prid(root):
    for camera in ("cam_a", "cam_b"):
        folder = root / "prid2011" / "prid_2011" / "single_shot" / camera
        folder.mkdir(parents=True)
        (folder / "person_0001.png").touch()


def grid(root):
    base = root / "grid" / "underground_reid"
    for part, camera in (("probe", 1), ("gallery", 2)):
        (base / part).mkdir(parents=True)
        for pid in range(1, 251):
            (base / part / f"{pid:04d}_{camera}_1.jpeg").touch()
    cells = np.empty((1, 10), dtype=object)
    for split in range(10):
        cells[0, split] = {"a": 0, "b": 0, "train": np.arange(split + 1, split + 126)}
    savemat(base / "features_and_partitions.mat", {"trainIdxAll": cells})


SETS = {function.__name__: function for function in (cuhk01, viper, ilids, prid, grid)}
DIGESTS = {
    "cuhk01": "0dd0025790cf6684dbc8c51e663a8b2d83f8763336b3c297183525f574c36df7",
    "viper": "cc39f0818671f1f718b0206e14029a27fc01eeeb5f3450c883b2c08af1c8887c",
    "ilids": "29293c436ab3b222a7ff3b009fffa16f768050141888bf51ff9641250da33312",
    "prid": "9e7c9951ba4d035404fbda99e7f63fa7992f4c8464d21f5c445726bb17eefacb",
    "grid": "85ba3d49e34f2116098f7543cb87a52cc9a08508a43cb79452949f3e1e9c7c42",
}
"""Of the first split. Another one changes what is trained and tested: scores before and after are not comparable."""


def load(root, name, split_id=0, **options):
    """Lists of a data set with paths below the root, and the record."""
    splits = Splits(split_id)
    with host.folders_read(splits.of):
        found = host.image_datasets()[name](root=str(root), split_id=split_id, verbose=False, **options)
    lists = (found.train, found.query, found.gallery)
    assert all(str(image[0]).startswith(f"{root}/") for images in lists for image in images)
    return [[(image[0].removeprefix(f"{root}/"), *image[1:]) for image in images] for images in lists], splits.record


def files(root):
    return sorted(root.rglob("*"))


@pytest.mark.parametrize("name", SETS)
def test_a_split_is_that_of_the_data_set(tmp_path, name):
    SETS[name](tmp_path / "one")
    before = files(tmp_path)
    random.seed(1)
    np.random.seed(1)
    first = load(tmp_path / "one", name)
    state = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    assert (random.random(), np.random.rand()) == state  # the run's own numbers are as they were
    assert files(tmp_path) == before
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert load(tmp_path / "two", name) == first
    assert load(tmp_path / "two", name, 3) != first
    train, query, gallery = first[0]
    record = first[1][name]
    assert record["from"] == (PUBLISHED if name == "grid" else DRAWN)
    if name != "prid":  # whose splits are lists of people
        assert (record["train"], record["query"], record["gallery"]) == (len(train), len(query), len(gallery))
    assert record["sha256"] == DIGESTS[name]


def test_the_order_of_the_file_system_does_not_count(tmp_path, monkeypatch):
    ilids(tmp_path)
    first = load(tmp_path, "ilids")
    real = host.glob.glob
    monkeypatch.setattr(host.glob, "glob", lambda pattern: sorted(real(pattern), reverse=True))
    assert load(tmp_path, "ilids") == first


def by_the_host(root, name, seed=0):
    """Lets the host write its file; where it is."""
    np.random.seed(seed)
    host.image_datasets()[name](root=str(root), verbose=False)
    return next((root / host.image_datasets()[name].dataset_dir).glob("splits*.json"))


@pytest.mark.parametrize("name", SETS)
def test_a_file_of_an_earlier_run_is_used_where_it_is(tmp_path, capsys, name):
    SETS[name](tmp_path)
    host_lists = by_the_host(tmp_path, name)
    split = json.loads(host_lists.read_text())[0]
    lists, record = load(tmp_path, name)
    assert record[name]["from"] == host_lists.name
    assert f"{name}: the split is that of {host_lists}" in capsys.readouterr().out
    if name == "cuhk01":
        assert [image[0] for image in lists[1]] == [path.removeprefix(f"{tmp_path}/") for path, *_ in split["query"]]


def test_a_file_that_names_another_place_is_not_used(tmp_path, capsys):
    cuhk01(tmp_path / "disk1")
    by_the_host(tmp_path / "disk1", "cuhk01")
    shutil.copytree(tmp_path / "disk1", tmp_path / "disk2")
    (tmp_path / "disk2" / "cuhk01" / "splits.json").chmod(0o444)
    _, record = load(tmp_path / "disk2", "cuhk01")
    assert record["cuhk01"]["sha256"] == DIGESTS["cuhk01"]
    out = capsys.readouterr().out
    assert f"disk2/cuhk01/splits.json is not used: it names files elsewhere, in {tmp_path}/disk1/cuhk01/campus" in out


def test_a_file_whose_images_are_gone_is_not_used(tmp_path, capsys):
    cuhk01(tmp_path)
    by_the_host(tmp_path, "cuhk01")
    (tmp_path / "cuhk01" / "campus" / "0001001.png").unlink()
    load(tmp_path, "cuhk01")
    assert "is not used: 1 of its files are not there, such as" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[1, 2", "[1]", '{"train": 3}', "[[]]"])
def test_a_file_that_is_damaged_is_not_used(tmp_path, capsys, text):
    viper(tmp_path)
    (tmp_path / "viper" / "splits.json").write_text(text)
    load(tmp_path, "viper")
    assert "splits.json is not used: it cannot be read" in capsys.readouterr().out


def test_images_of_cuhk03_are_those_of_the_folder(tmp_path):
    folder = tmp_path / "cuhk03"
    for name in ("cuhk03_release", "images_detected", "images_labeled"):
        (folder / name).mkdir(parents=True)
    names = ["cuhk03_release/cuhk-03.mat"]
    names += [f"cuhk03_new_protocol_config_{kind}.mat" for kind in ("detected", "labeled")]
    for name in names:
        (folder / name).touch()
    sides = {
        side: [[f"/old/disk/cuhk03/images_detected/1_00{pid}_{cam + 1}_01.png", pid, cam] for cam in (0, 1)]
        for pid, side in enumerate(("train", "query", "gallery"))
    }
    for kind in ("classic_detected", "classic_labeled", "new_detected", "new_labeled"):
        (folder / f"splits_{kind}.json").write_text(json.dumps([{**sides, "num_train_pids": 1}]))
    before = files(tmp_path)
    lists, _ = load(tmp_path, "cuhk03")
    assert [path for path, *_ in lists[1]] == [f"cuhk03/images_detected/1_001_{cam}_01.png" for cam in (1, 2)]
    assert files(tmp_path) == before


def test_a_split_that_is_not_there(tmp_path):
    viper(tmp_path)
    with pytest.raises(ValueError, match="'viper' from .*split_id exceeds range, received 99"):
        ImageDataManager(root=str(tmp_path), sources="viper", split_id=99, use_gpu=False)


def test_a_run_records_its_split_and_writes_nothing_into_the_data(tmp_path):
    cuhk01(tmp_path / "data")
    before = files(tmp_path / "data")
    options = ["model.name", "osnet_x0_25", "model.pretrained", "False", "data.height", "64", "data.width", "32"]
    options += ["data.workers", "0", "train.batch_size", "4", "train.max_epoch", "1", "data.save_dir"]
    at = ["--root", str(tmp_path / "data"), "-s", "cuhk01", "-t", "cuhk01"]
    assert main([*at, *options, str(tmp_path / "log")]) == 0
    split = json.loads((tmp_path / "log" / "results.json").read_text())["splits"]["cuhk01"]
    assert (split["split_id"], split["from"], split["sha256"]) == (0, DRAWN, DIGESTS["cuhk01"])
    assert files(tmp_path / "data") == before
