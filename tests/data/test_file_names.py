"""Data folders whose names do not fit: named with the file, the rule and what to do."""

import os
import re

import pytest
import torchreid

from torchreid_ptl import host
from torchreid_ptl.data.file_names import LAYOUTS
from torchreid_ptl.data.known import hint_dataset
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.names import ensure_registered
from torchreid_ptl.data.preflight import check_folders

EXAMPLES = {
    "market1501": "0002_c1s1_000451_03.jpg",
    "dukemtmcreid": "0001_c2_f0046182.jpg",
    "cuhk01": "0001001.png",
    "cuhk02": "001_1000.png",
    "viper": "000_45.bmp",
    "ilids": "0001001.jpg",
    "grid": "0001_1_25004_107_32_106_221.jpeg",
    "sensereid": "00001_0.jpg",
    "cuhksysu": "p11422_s16929_1.jpg",
}


def laid_out(root, name, file="", inner=None):
    """Folders of a data set with a file in each, which is the example of its rule; the first folder."""
    layout = LAYOUTS[host.reader_of(host.image_datasets()[name])]
    base = root / host.image_datasets()[name].dataset_dir / (layout.inner if inner is None else inner)
    for part in layout.folders:
        (base / part).mkdir(parents=True)
        (base / part / EXAMPLES.get(name, file)).touch()
    return base / layout.folders[0]


def market(root, name="{pid:04d}_c{cam}s1_000001_00.jpg", cams=(1, 2)):
    """Two people to train on and two to test on, by each camera."""
    base = root / "market1501" / "Market-1501-v15.09.15"
    for part, people in (("bounding_box_train", (1, 2)), ("query", (3, 4)), ("bounding_box_test", (3, 4))):
        (base / part).mkdir(parents=True)
        for pid in people:
            for cam in cams:
                (base / part / name.format(pid=pid, cam=cam)).touch()
    return base


def managed(root, name="market1501", **options):
    return ImageDataManager(
        root=str(root), sources=name, batch_size_train=2, workers=0, use_gpu=False, height=64, width=32, **options
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_of_the_rule_are_taken(tmp_path, name):
    folder = laid_out(tmp_path, name)
    (folder / "Thumbs.db").touch()
    (folder / f"._{EXAMPLES[name]}").touch()  # of macOS; torchreid does not see it either
    assert check_folders(str(tmp_path), [name]) == []
    assert EXAMPLES[name] in LAYOUTS[host.reader_of(host.image_datasets()[name])].said


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_stray_image_is_named_with_the_rule(tmp_path, name):
    folder = laid_out(tmp_path, name)
    suffix = EXAMPLES[name].rpartition(".")[2]
    for number in range(7):
        (folder / f"desktop{number}.{suffix}").mkdir()
    found = rf"desktop0\.{suffix}, .*desktop4\.{suffix} and 2 more in {folder} cannot be read as '{name}'.*does not fit"
    with pytest.raises(ValueError, match=f"{found}.*{re.escape(EXAMPLES[name])}. Rename or remove them"):
        check_folders(str(tmp_path), [name])


@pytest.mark.parametrize(
    ("name", "file", "problem"),
    [
        ("market1501", "20231105_c1s1_000001_00.jpg", "has identity 20231105"),
        ("market1501", "0001_c7s1_000001_00.jpg", "has camera 7"),
        ("market1501", "0001_c0s1_000001_00.jpg", "has camera 0"),
        ("market1501", "0001_c10s1_000001_00.jpg", "has camera 10"),
        ("market1501", "2023-11_c1s1_000001_00.jpg", "has the identity '2023-11'"),
        ("market1501", "-7_c1s1_000001_00.jpg", "has identity -7"),
        ("dukemtmcreid", "0001_c9_f0046182.jpg", "has camera 9"),
        ("dukemtmcreid", "-1_c1_f0046182.jpg", "has identity -1"),
        ("cuhk01", "0000001.png", "has identity 0"),
        ("cuhk01", "0001005.png", "has image 5"),
        ("ilids", "0001000.jpg", "has image 0"),
        ("grid", "0001_0_1.jpeg", "has camera 0"),
        ("sensereid", "00001_0_1.jpg", "does not fit"),
    ],
)
def test_numbers_beyond_those_of_the_set(tmp_path, name, file, problem):
    folder = laid_out(tmp_path, name)
    (folder / file).touch()
    with pytest.raises(ValueError, match=f"{file} in {folder} cannot be read as '{name}': {file} {problem}"):
        check_folders(str(tmp_path), [name])


def test_distractors_are_read_when_they_are_asked_for(tmp_path):
    base = market(tmp_path)
    (base / "images").mkdir()
    (base / "images" / "distractor_000001.jpg").touch()
    managed(tmp_path)
    with pytest.raises(ValueError, match=r"distractor_000001\.jpg in .*images cannot be read"):
        managed(tmp_path, market1501_500k=True)


def test_images_that_are_left_out_are_told(tmp_path, capsys):
    base = market(tmp_path)
    (base / "bounding_box_train" / "0001_c1s1_000009_00.JPG").touch()
    (base / "bounding_box_train" / "-1_c1s1_000009_00.jpg").touch()
    (base / "bounding_box_test" / "-1_c1s1_000009_00.jpg").touch()
    assert len(managed(tmp_path).train_set.train) == 4
    out = capsys.readouterr().out
    assert f"0001_c1s1_000009_00.JPG in {base}/bounding_box_train is not read: torchreid reads *.jpg" in out
    assert out.count("-1_c1s1_000009_00.jpg") == 1
    assert "is left out: identity -1 is nobody" in out


def test_a_root_that_looks_like_an_image(tmp_path):
    root = tmp_path / "trial_01_c2"
    market(root)
    manager = managed(root)
    assert (manager.num_train_pids, manager.num_train_cams) == (2, 2)
    assert sorted({image[1:3] for image in manager.test_dataset["market1501"]["query"]}) == [
        (3, 0), (3, 1), (4, 0), (4, 1)
    ]  # fmt: skip
    with pytest.raises(IndexError, match="no such group"), host.folders_read(lambda *_: None):
        re.search("a", "a").group(1)  # the module of everybody else is as it was


@pytest.mark.parametrize("special", ["[", "*", "?"])
def test_a_root_that_is_a_pattern(tmp_path, special):
    root = tmp_path / f"data {special}new]"
    market(root)
    with pytest.raises(ValueError, match=rf"data \{special}new\].* has .*\{special}.*link to it without such"):
        managed(root)


def test_sets_that_no_pattern_is_used_for_may_lie_there(tmp_path):
    root = tmp_path / "data [new]"
    laid_out(root, "prid", "person_0001.png")
    check_folders(str(root), ["prid"])


@pytest.mark.parametrize("name", ["class50:market1501", "joined:market1501+cuhksysu"])
def test_parts_and_joined_sets_are_looked_at(tmp_path, name):
    (market(tmp_path) / "bounding_box_train" / "desktop.jpg").touch()
    laid_out(tmp_path, "cuhksysu")
    ensure_registered([name])
    with pytest.raises(ValueError, match=r"desktop\.jpg .*cannot be read as 'market1501'"):
        check_folders(str(tmp_path), [name])


def test_partners(tmp_path):
    folder = laid_out(tmp_path, "viper")
    (folder / "001_90.bmp").touch()
    with pytest.raises(ValueError, match=r"001_90\.bmp in .*cam_a shows somebody without an image in .*cam_b"):
        check_folders(str(tmp_path), ["viper"])


@pytest.mark.parametrize(
    "line", ["", "0000/0000_000_01_a.jpg", "0000/0000_000_16_a.jpg 3", "a b_1_2.jpg 3", "0_0_1.jpg x", "0000/0.jpg 3"]
)
def test_lists_of_msmt17(tmp_path, line):
    good = "0000/0000_000_01_0303morning_0008_0.jpg 0"
    main = tmp_path / "msmt17" / "MSMT17_V1"
    main.mkdir(parents=True)
    for name in ("train", "val", "query", "gallery"):
        (main / f"list_{name}.txt").write_text(f"{good}\n")
    check_folders(str(tmp_path), ["msmt17"])
    (main / "list_query.txt").write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=rf"Line 2 of .*list_query\.txt, .*is {re.escape(repr(line))}"):
        check_folders(str(tmp_path), ["msmt17"])


@pytest.fixture
def own(monkeypatch):
    """Registers a data set class for the length of a test."""

    def register(dataset):
        monkeypatch.setitem(host.image_datasets(), "own", dataset)

    return register


def test_a_class_of_ones_own_reads_as_it_likes(tmp_path, own):
    class Own(torchreid.data.ImageDataset):
        dataset_dir = "not_there"

        def __init__(self, root="", **kwargs):
            images = [(f"{root}/desktop[{pid}].tif", pid, cam) for pid in (1, 2) for cam in (11, 12)]
            super().__init__(images, images, images, **kwargs)

    own(Own)
    assert managed(tmp_path, "own").num_train_pids == 2


def test_a_class_that_reads_by_the_code_of_market1501_has_its_rules(tmp_path, own):
    market(tmp_path, cams=(1, 2, 10))

    class Mine(host.image_datasets()["market1501"]):
        pass

    own(Mine)
    with pytest.raises(ValueError, match="cannot be read as 'own'.*has camera 10"):
        managed(tmp_path, "own")

    class Other(Mine):
        def process_dir(self, dir_path, relabel=False):
            return [(dir_path, 1, 0), (dir_path, 1, 9)]

    own(Other)
    assert managed(tmp_path, "own").num_train_pids == 1


def test_what_stops_a_class_of_ones_own(tmp_path, own):
    class Own(torchreid.data.ImageDataset):
        dataset_dir = "mine"

        def __init__(self, root="", **kwargs):
            for img_path in ("a.jpg", "b.jpg"):
                {"a.jpg": 1}[img_path]

    own(Own)
    with pytest.raises(
        ValueError, match="could not load 'own' from .*mine, which does not exist: KeyError: "
    ) as caught:
        managed(tmp_path, "own")
    message = str(caught.value)
    assert f"a class of your own, {__name__}." in message
    assert f"{__file__}, line" in message
    assert "authors" not in message


def test_a_class_that_does_not_call_torchreids(tmp_path, own):
    class Own(torchreid.data.ImageDataset):
        def __init__(self, root="", **kwargs):
            self.train = []

    own(Own)
    with pytest.raises(FileNotFoundError, match=r"'own' from .*: AttributeError: 'Own'.* 'num_train_pids'.*your own"):
        managed(tmp_path, "own")


@pytest.mark.parametrize("wrong", [("a.jpg", "1", 0), ("a.jpg", 1, None), (3, 1, 0)])
@pytest.mark.parametrize("side", [0, 1, 2])
def test_what_a_class_of_ones_own_lists(tmp_path, own, side, wrong):
    lists = [[(f"{pid}_{cam}.jpg", pid, cam) for pid in (1, 2) for cam in (0, 1)] for _ in range(3)]
    lists[side].append(wrong)

    class Own(torchreid.data.ImageDataset):
        def __init__(self, root="", **kwargs):
            super().__init__(*lists, **kwargs)

    own(Own)
    with pytest.raises(ValueError, match=rf"data set own lists {re.escape(str(wrong))}; .* whole numbers"):
        managed(tmp_path, "own")


def test_an_own_class_that_finds_nothing_behind_brackets(tmp_path, own):
    class Own(torchreid.data.ImageDataset):
        def __init__(self, root="", **kwargs):
            super().__init__([], [], [], **kwargs)

    own(Own)
    (tmp_path / "[new]").mkdir()
    with pytest.raises(ValueError, match=r"lists are empty.* whose path has \[ in it: Python's glob"):
        managed(tmp_path / "[new]", "own")


def test_names_that_are_no_text_can_be_printed(tmp_path, capsys):
    (market(tmp_path) / "query" / os.fsdecode(b"\xff.JPG")).touch()
    managed(tmp_path)
    assert r"\udcff.JPG in" in capsys.readouterr().out


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "market1501").touch()
    with pytest.raises(FileNotFoundError, match="data set 'market1501' is no folder"):
        check_folders(str(tmp_path), ["market1501"])


def test_an_exception_of_the_host_has_its_kind_and_the_file(tmp_path):
    folders = [f"University-Release/{part}" for part in ("train/drone", "test/query_drone", "test/gallery_satellite")]
    for folder in folders:
        (tmp_path / "university1652" / folder / "not a number").mkdir(parents=True)
        (tmp_path / "university1652" / folder / "not a number" / "0.jpg").touch()
    with pytest.raises(
        ValueError, match=r"'university1652' from .*: ValueError: invalid literal.*, at .*number/0\.jpg. Lay"
    ):
        managed(tmp_path, "university1652")


def test_an_empty_assertion_of_the_host_is_named(tmp_path):
    folder = laid_out(tmp_path, "viper")
    (folder / "000_90.bmp").touch()
    with pytest.raises(FileNotFoundError, match=r"could not load 'viper' from .*viper: AssertionError. Lay"):
        managed(tmp_path, "viper")


@pytest.mark.parametrize(
    ("name", "near"),
    [("mars", "market1501"), ("prid2011", "prid"), ("ilidsvid", "ilids"), ("dukemtmcvidreid", "dukemtmcreid")],
)
def test_video_sets_are_called_what_they_are(name, near):
    for wrong in (name, f"class30:{name}", f"joined:{name}+grid"):
        with pytest.raises(ValueError, match=f"a video data set: .*of the same place is '{near}'. Allowed: market1501"):
            check_folders("", [wrong])
    assert "did you mean" not in hint_dataset(name)
