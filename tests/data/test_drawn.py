import dataclasses
import glob
import hashlib
import itertools
import json
import os
import random
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
import torchreid
from PIL import Image

from torchreid_ptl.data import drawn
from torchreid_ptl.data.drawing import draw_pedestrian, seeded
from torchreid_ptl.data.drawn import DrawnPedestrians, Recipe, make_camera, make_dataset, make_identity
from torchreid_ptl.data.figure import HEIGHT, WIDTH

TINY = {"seed": 3, "train_ids": 4, "test_ids": 3, "distractor_ids": 2, "cameras": 2, "images_per_camera": 2}


class TinyPedestrians(DrawnPedestrians):
    recipe = Recipe(**TINY)


def pixels(number, camera, index, seed=1):
    generator = seeded(number, camera, index, seed)
    return np.asarray(draw_pedestrian(make_identity(number, seed), make_camera(camera, seed), generator)).astype(int)


def names(folder):
    return sorted(os.path.basename(path) for path in glob.glob(os.path.join(folder, "*.jpg")))


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path / "drawn_pedestrians", **TINY)
    return tmp_path / "drawn_pedestrians"


class TestPictures:
    def test_same_key_same_pixels_in_any_order(self):
        keys = [(number, camera, index) for number in (1, 9) for camera in (0, 1, 2) for index in (0, 1)]
        forwards = {key: pixels(*key) for key in keys}
        for key in reversed(keys):
            np.testing.assert_array_equal(pixels(*key), forwards[key])

    def test_every_part_of_the_key_matters(self):
        reference = pixels(1, 0, 0)
        for other in (pixels(2, 0, 0), pixels(1, 1, 0), pixels(1, 0, 1), pixels(1, 0, 0, seed=2)):
            assert np.abs(other - reference).mean() > 5

    def test_is_a_colour_image_of_the_stated_size_with_contrast(self):
        for number in range(1, 9):
            picture = pixels(number, number % 4, 0)
            assert picture.shape == (HEIGHT, WIDTH, 3) == (128, 64, 3)
            assert picture.std() > 15
            assert 30 < picture.mean() < 225

    def test_one_person_looks_more_alike_than_two_under_one_camera(self):
        # One person of each group of lookalikes in a calm place; coarse blocks forgive the pose.
        people = [make_identity(number * drawn.LOOKALIKES, 1) for number in range(1, 11)]
        for number in range(4):
            camera = dataclasses.replace(make_camera(number, 1), stray=0.0, occlusion=0.0, flicker=0.0, jitter=0.0)
            seen = [(who, np.asarray(draw_pedestrian(who, camera, seeded(k)))) for who in people for k in range(4)]
            blocks = [(who, picture.reshape(8, 16, 4, 16, 3).mean((1, 3))) for who, picture in seen]
            pairs = [(a is b, np.abs(x - y).mean()) for (a, x), (b, y) in itertools.combinations(blocks, 2)]
            within, between = ([d for alike, d in pairs if alike is wanted] for wanted in (True, False))
            assert len(within) == 10 * 6
            assert np.mean(within) < 0.8 * np.mean(between)

    def test_a_backpack_shows_on_the_back(self):
        bare = dataclasses.replace(make_identity(1, 1), carried="nothing", accent=(250, 0, 0))
        laden = dataclasses.replace(bare, carried="backpack")
        camera = dataclasses.replace(make_camera(0, 1), stray=0.0, occlusion=0.0)

        def changed(view):
            seen = [draw_pedestrian(who, dataclasses.replace(camera, view=view), seeded(7)) for who in (bare, laden)]
            return int((np.abs(np.asarray(seen[0]).astype(int) - np.asarray(seen[1])).max(-1) > 20).sum())

        assert changed("back") > 1.5 * changed("front") > 0
        assert changed("back") > 300

    def test_an_occluder_hides_part_of_the_person(self):
        def seen(camera, key):
            return np.asarray(draw_pedestrian(make_identity(1, 1), camera, seeded(key))).astype(int)

        clear = dataclasses.replace(make_camera(0, 1), occlusion=0.0, flicker=0.0, noise=0.0)
        for occluder in drawn.OCCLUDERS:
            blocked = dataclasses.replace(clear, occlusion=1.0, occluder=occluder)
            hidden = [(np.abs(seen(blocked, key) - seen(clear, key)).max(-1) > 30).mean() for key in range(8)]
            assert 0.03 < np.mean(hidden) < 0.6


class TestPopulation:
    def test_lookalikes_share_main_colours_and_differ_in_weave(self):
        group = [make_identity(number, 1) for number in range(2 * drawn.LOOKALIKES, 3 * drawn.LOOKALIKES)]
        assert len({(who.top.colour, who.bottom.colour) for who in group}) == 1
        assert len({who.top.weave for who in group}) == drawn.LOOKALIKES

    def test_no_two_identities_are_equal(self):
        people = [dataclasses.replace(make_identity(n, 1), height=1.0, width=1.0, head=1.0) for n in range(181)]
        assert len(set(people)) == 181

    def test_cameras_see_different_sides_and_colours(self):
        cameras = [make_camera(number, 1) for number in range(4)]
        assert {camera.view for camera in cameras} == {"front", "side", "back"}
        assert len({camera.gains for camera in cameras}) == len({camera.scene for camera in cameras}) == 4


class TestRecipe:
    @pytest.mark.parametrize(
        ("name", "value"), [("seed", -1), ("train_ids", 0), ("test_ids", 0), ("cameras", 1), ("images_per_camera", 1)]
    )
    def test_refuses_what_cannot_be_drawn(self, tmp_path, name, value):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            make_dataset(tmp_path / "set", **{**TINY, name: value})
        assert os.listdir(tmp_path) == []

    def test_counts_of_the_standard_set(self):
        folders = [path.split("/")[0] for path, *_ in Recipe().images()]
        counts = [folders.count(name) for name in ("bounding_box_train", "query", "bounding_box_test")]
        assert counts == [100 * 4 * 4, 60 * 4, 60 * 4 * 3 + 20 * 4 * 4]


class TestFolder:
    def test_layout(self, folder):
        assert sorted(os.listdir(folder)) == ["bounding_box_test", "bounding_box_train", "manifest.json", "query"]
        expected = [f"000{pid}_c{camera}_00{i}.jpg" for pid in (1, 2, 3, 4) for camera in (1, 2) for i in (0, 1)]
        assert names(folder / "bounding_box_train") == expected
        assert names(folder / "query") == [f"000{pid}_c{camera}_000.jpg" for pid in (5, 6, 7) for camera in (1, 2)]
        distractors = [f"0000_c{camera}_00{i}.jpg" for camera in (1, 2) for i in (0, 1, 2, 3)]
        rest = [f"000{pid}_c{camera}_001.jpg" for pid in (5, 6, 7) for camera in (1, 2)]
        assert names(folder / "bounding_box_test") == distractors + rest
        with Image.open(folder / "query" / "0005_c1_000.jpg") as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (64, 128), "RGB")

    def test_two_makings_are_equal_byte_by_byte(self, folder, tmp_path):
        make_dataset(tmp_path / "again", **TINY)
        for path in glob.glob(str(folder / "*" / "*.jpg")):
            other = tmp_path / "again" / os.path.relpath(path, folder)
            assert other.read_bytes() == Path(path).read_bytes()

    def test_manifest_says_what_is_there(self, folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert {name: manifest[name] for name in TINY} == TINY
        assert manifest["version"] == drawn.VERSION
        digest = hashlib.sha256()
        paths = sorted(os.path.relpath(path, folder) for path in glob.glob(str(folder / "*" / "*.jpg")))
        for path in paths:
            digest.update(path.replace(os.sep, "/").encode() + (folder / path).read_bytes())
        assert manifest["sha256"] == digest.hexdigest()
        assert manifest["images"] == len(paths) == (4 + 3 + 2) * 2 * 2

    def test_announces_its_work_once(self, tmp_path, capsys):
        make_dataset(tmp_path / "set", **TINY)
        first, last = capsys.readouterr().out.splitlines()
        assert "36 images" in first
        assert str(tmp_path / "set") in first
        assert last.startswith("Drew")
        make_dataset(tmp_path / "set", **TINY)
        assert capsys.readouterr().out == ""

    def test_touches_no_global_random_state(self, tmp_path):
        python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        make_dataset(tmp_path / "set", **TINY)
        assert random.getstate() == python
        assert torch.equal(torch.get_rng_state(), torch_state)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state[1])
        assert np.random.get_state()[2] == numpy_state[2]

    def test_leaves_a_matching_folder_alone(self, folder):
        path = folder / "query" / "0005_c1_000.jpg"
        before = path.stat()
        make_dataset(folder, **TINY)
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


class TestRefusals:
    @pytest.mark.parametrize("name", sorted(TINY))
    def test_another_recipe(self, folder, name):
        with pytest.raises(FileExistsError, match=f"{name} {TINY[name]} instead of {TINY[name] + 1}") as caught:
            make_dataset(folder, **{**TINY, name: TINY[name] + 1})
        assert str(folder) in str(caught.value)
        assert "delete the folder or choose another root" in str(caught.value)

    def test_another_version(self, folder, monkeypatch):
        monkeypatch.setattr(drawn, "VERSION", drawn.VERSION + 1)
        with pytest.raises(FileExistsError, match="version"):
            make_dataset(folder, **TINY)

    def test_another_difficulty(self, folder, monkeypatch):
        monkeypatch.setitem(drawn.DIFFICULTY, "noise", drawn.DIFFICULTY["noise"] + 1)
        with pytest.raises(FileExistsError, match="difficulty"):
            make_dataset(folder, **TINY)

    @pytest.mark.parametrize("damage", ["empty", "no manifest", "torn manifest", "no query folder", "a file"])
    def test_incomplete(self, folder, damage):
        manifest = folder / "manifest.json"
        if damage == "torn manifest":
            manifest.write_text('{"version"')
        elif damage == "no query folder":
            os.rename(folder / "query", folder.parent / "elsewhere")
        elif damage == "no manifest":
            manifest.unlink()
        else:
            os.rename(folder, folder.parent / "elsewhere")
            folder.mkdir() if damage == "empty" else folder.write_text("")
        with pytest.raises(FileExistsError, match="no complete set of drawn pedestrians") as caught:
            TinyPedestrians(root=folder.parent, verbose=False)
        assert str(folder) in str(caught.value)
        assert "delete the folder or choose another root" in str(caught.value)

    @pytest.mark.parametrize("damage", ["missing", "emptied"])
    def test_damaged_image(self, folder, damage):
        path = folder / "query" / "0006_c2_000.jpg"
        path.unlink() if damage == "missing" else path.write_bytes(b"")
        with pytest.raises(FileExistsError, match="changed after drawing"):
            make_dataset(folder, **TINY)


class TestAtomicity:
    def test_interruption_leaves_nothing(self, tmp_path, monkeypatch):
        drawn_so_far = []

        def interrupted(*arguments):
            drawn_so_far.append(arguments)
            if len(drawn_so_far) == 5:
                raise KeyboardInterrupt
            return draw_pedestrian(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(drawn, "draw_pedestrian", interrupted)
            with pytest.raises(KeyboardInterrupt):
                make_dataset(tmp_path / "set", **TINY)
        assert os.listdir(tmp_path) == []
        make_dataset(tmp_path / "set", **TINY)
        assert os.listdir(tmp_path) == ["set"]

    @pytest.mark.parametrize("rival_seed", [3, 4])
    def test_a_rival_that_finishes_first_wins(self, tmp_path, monkeypatch, rival_seed):
        rename = os.rename

        def overtaken(source, target):
            monkeypatch.setattr(os, "rename", rename)
            make_dataset(target, **{**TINY, "seed": rival_seed})
            rename(source, target)

        monkeypatch.setattr(os, "rename", overtaken)
        if rival_seed == TINY["seed"]:
            make_dataset(tmp_path / "set", **TINY)
        else:
            with pytest.raises(FileExistsError, match="seed 4 instead of 3"):
                make_dataset(tmp_path / "set", **TINY)
        assert os.listdir(tmp_path) == ["set"]
        assert json.loads((tmp_path / "set" / "manifest.json").read_text())["seed"] == rival_seed

    def test_an_unwritable_place_is_reported_as_such(self, tmp_path, monkeypatch):
        def refused(source, target):
            raise PermissionError("no")

        monkeypatch.setattr(os, "rename", refused)
        with pytest.raises(PermissionError):
            make_dataset(tmp_path / "set", **TINY)
        assert os.listdir(tmp_path) == []


class TestDataset:
    def test_lists(self, tmp_path):
        dataset = TinyPedestrians(root=tmp_path, verbose=False)
        assert dataset.dataset_dir == str(tmp_path / "drawn_pedestrians")
        for items in (dataset.train, dataset.query, dataset.gallery):
            assert [item[0] for item in items] == sorted(item[0] for item in items)
            assert {item[2] for item in items} == {0, 1}
        assert [item[1] for item in dataset.train] == [label for label in range(4) for _ in range(4)]
        assert [item[1] for item in dataset.query] == [5, 5, 6, 6, 7, 7]
        assert [item[1] for item in dataset.gallery] == [0] * 8 + [5, 5, 6, 6, 7, 7]

    def test_combineall_leaves_distractors_out(self, tmp_path):
        dataset = TinyPedestrians(root=tmp_path, verbose=False, combineall=True)
        assert dataset.num_train_pids == 4 + 3
        assert len(dataset.train) == (4 + 3) * 4
        assert {item[1] for item in dataset.train} == set(range(7))

    def test_is_made_below_a_root_that_is_not_there(self, tmp_path):
        assert DrawnPedestrians.made_on_use
        dataset = TinyPedestrians(root=tmp_path / "new" / "root", verbose=False, mode="query")
        assert len(dataset) == 6
        item = dataset[0]
        assert (item["pid"], item["camid"], item["img"].size) == (5, 0, (64, 128))

    def test_host_manager_loads_it(self, tmp_path):
        name = f"drawn_{uuid.uuid4().hex}"
        torchreid.data.register_image_dataset(name, TinyPedestrians)
        manager = torchreid.data.ImageDataManager(
            root=str(tmp_path),
            sources=name,
            height=128,
            width=64,
            batch_size_train=8,
            batch_size_test=8,
            workers=0,
            use_gpu=False,
        )
        assert (manager.num_train_pids, manager.num_train_cams) == (4, 2)
        batch = next(iter(manager.train_loader))
        assert batch["img"].shape == (8, 3, 128, 64)
        assert set(batch["pid"].tolist()) <= set(range(4))
        loaders = manager.test_loader[name]
        assert [sum(len(b["pid"]) for b in loaders[part]) for part in ("query", "gallery")] == [6, 14]
