"""Joined training sets."""

import pickle

import pytest
import torchreid
from helpers import configure, main, parse
from PIL import Image

from torchreid_ptl import host
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, load_config
from torchreid_ptl.data.drawn import Recipe, TinyDrawnPedestrians
from torchreid_ptl.data.joined import PREFIX, ensure_joined, make_joined
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.preflight import check_folders

TINY, OTHER = "drawn_pedestrians_tiny", "drawn_tiny_too"
BOTH = f"{PREFIX}{TINY}+{OTHER}"


class OtherTiny(TinyDrawnPedestrians):
    """Another population before other cameras."""

    dataset_dir = OTHER
    recipe = Recipe(seed=2, train_ids=3, test_ids=2, distractor_ids=0, cameras=3, images_per_camera=2)


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    """The table of data sets is as it was afterwards, in which a second tiny set is registered."""
    table = host.image_datasets()
    before = dict(table)
    table[OTHER] = OtherTiny
    yield
    table.clear()
    table.update(before)


@pytest.fixture
def fabricated(tmp_path):
    """Folders of Market-1501 and DukeMTMC-reID with the same identity and camera numbers in both."""

    def fill(folder, names):
        folder.mkdir(parents=True)
        for index, name in enumerate(names):
            Image.new("RGB", (8, 16), (index, 0, 0)).save(folder / f"{name}_{index:03d}.jpg")

    test = ["0100_c1", "0100_c2"]
    for folder, train in {
        "market1501/Market-1501-v15.09.15": ["0002_c1", "0002_c3", "0007_c1", "0007_c3"],
        "dukemtmc-reid/DukeMTMC-reID": ["0002_c2", "0002_c8", "0005_c5", "0005_c2"],
    }.items():
        for part, names in {"bounding_box_train": train, "query": test, "bounding_box_test": test}.items():
            fill(tmp_path / folder / part, names)
    return tmp_path


def manager(root, sources, targets=TINY, **options):
    options = {"height": 64, "width": 32, "batch_size_train": 4, "workers": 0, "use_gpu": False, **options}
    return ImageDataManager(root=str(root), sources=sources, targets=targets, **options)


def training(built):
    return built.train_loader.dataset.dataset.data


def test_market_duke_keeps_people_and_cameras_of_the_two_apart(fabricated, capsys):
    built = manager(fabricated, "market_duke", "market1501")
    train = training(built)
    assert [(item[1], item[3]) for item in train] == [(0, 0), (0, 0), (1, 0), (1, 0), (2, 1), (2, 1), (3, 1), (3, 1)]
    cameras = {(item[3], item[0].split("_c")[-1][0]): item[2] for item in train}
    assert cameras == {(0, "1"): 0, (0, "3"): 1, (1, "2"): 2, (1, "5"): 3, (1, "8"): 4}
    assert all("bounding_box_train" in item[0] for item in train)
    assert (built.num_train_pids, built.num_train_cams) == (4, 5)
    out = capsys.readouterr().out
    for row in (("market1501", 2, 4, 2), ("dukemtmcreid", 2, 4, 3), ("all, kept apart", 4, 8, 5)):
        assert list(row) in [
            [int(cell) if cell.strip().isdigit() else cell.strip() for cell in line.split("|")]
            for line in out.splitlines()
        ]


def test_joined_is_the_same_as_several_sources(tiny_root):
    joined, apart = manager(tiny_root, BOTH), manager(tiny_root, [TINY, OTHER])
    assert training(joined) == training(apart)
    assert len(training(joined)) == 16 + 18
    assert (joined.num_train_pids, joined.num_train_cams) == (apart.num_train_pids, apart.num_train_cams) == (7, 5)
    assert next(iter(joined.train_loader))["img"].shape == (4, 3, 64, 32)


@pytest.mark.parametrize("turned", [False, True])
def test_joined_beside_another_source(fabricated, turned):
    sources = ["market_duke", TINY]
    built = manager(fabricated, sources[::-1] if turned else sources)
    train = training(built)
    assert len(train) == 8 + 16
    assert len({item[1] for item in train}) == built.num_train_pids == 4 + 4
    assert len({item[2] for item in train}) == built.num_train_cams == 5 + 2
    assert len({(item[3], item[2]) for item in train}) == 5 + 2
    assert {item[3] for item in train} == {0, 1, 2}


def test_batches_by_data_set_and_by_camera(tiny_root):
    both = manager(tiny_root, BOTH, train_sampler="RandomDatasetSampler", num_datasets=2)
    assert all(sorted(batch["dsetid"].tolist()) == [0, 0, 1, 1] for batch in both.train_loader)
    cameras = manager(tiny_root, BOTH, train_sampler="RandomDomainSampler", num_cams=4)
    assert all(len(set(batch["camid"].tolist())) == 4 for batch in cameras.train_loader)


def test_the_hosts_own_data_manager_takes_it(tiny_root):
    ensure_joined([BOTH])
    options = {"root": str(tiny_root), "height": 64, "width": 32, "workers": 0, "use_gpu": False}
    built = torchreid.data.ImageDataManager(sources=[BOTH], targets=TINY, batch_size_train=4, **options)
    assert built.num_train_pids == 7
    with pytest.raises(ValueError, match="has training images only"):
        torchreid.data.ImageDataManager(sources=[BOTH], batch_size_train=4, **options)


def test_query_and_gallery_are_empty(tiny_root):
    ensure_joined([BOTH])
    dataset = host.image_datasets()[BOTH](root=str(tiny_root), verbose=False)
    assert (dataset.query, dataset.gallery, len(dataset), dataset.num_datasets) == ([], [], 34, 2)
    assert dataset.train_only


def test_parts_get_what_the_manager_says(monkeypatch, tiny_root):
    seen = {}

    class Recording(OtherTiny):
        def __init__(self, **kwargs):
            seen.update(kwargs)
            super().__init__(**kwargs)

    host.image_datasets()[OTHER] = Recording
    manager(tiny_root, BOTH, cuhk03_labeled=True, cuhk03_classic_split=True, market1501_500k=True, split_id=3)
    wanted = {"cuhk03_labeled": True, "cuhk03_classic_split": True, "market1501_500k": True, "split_id": 3}
    assert seen.items() >= {**wanted, "root": str(tiny_root), "mode": "train"}.items()
    assert not seen.get("combineall")


def test_a_process_that_was_not_forked_reads_it(tiny_root):
    dataset = make_joined("made_in_another_process", (TINY, OTHER))(root=str(tiny_root))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.train == dataset.train
    assert [*(again + again).train[:34]] == dataset.train


def test_from_yaml_and_from_the_command_line(tmp_path):
    path = tmp_path / "joined.yaml"
    path.write_text(f"data:\n  sources: [{PREFIX}market1501+msmt17]\n")
    validate(load_config(path))
    config = configure(parse(["-s", f"{PREFIX}market1501+viper", "train.lr", "0.1"]))
    assert config.data.sources == [f"{PREFIX}market1501+viper"]
    assert {f"{PREFIX}market1501+msmt17", f"{PREFIX}market1501+viper"} <= set(host.image_datasets())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("joined:market1501+msmt71", "joins the unknown data set 'msmt71': did you mean 'msmt17'"),
        ("joined:market1501+", "joins the unknown data set ''"),
        ("joined:", "joins the unknown data set ''"),
        ("joined:market1501", "has one part; join two or more, as joined:A.B, or say 'market1501' alone"),
        ("joined:grid+viper+grid", "names 'grid' twice"),
        ("joined:grid+market_duke", "joins 'market_duke', which is joined itself; name the data sets one by one"),
        ("joined:grid+joined:viper+prid", "joins 'joined:viper', which is joined itself"),
    ],
)
def test_wrong_names(name, message, tmp_path):
    for use in (
        lambda: check_folders(str(tmp_path), [name]),
        lambda: manager(tmp_path, name),
        lambda: configure(parse(["-s", name])),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert name not in host.image_datasets()


def test_the_folder_of_every_part_is_looked_at(fabricated):
    check_folders(str(fabricated), ["market_duke"])
    with pytest.raises(FileNotFoundError, match="The folder of data set 'msmt17' is missing"):
        check_folders(str(fabricated), ["joined:market1501+dukemtmcreid+msmt17"])
    (fabricated / "dukemtmc-reid").rename(fabricated / "elsewhere")
    with pytest.raises(FileNotFoundError, match="The folder of data set 'dukemtmcreid' is missing"):
        manager(fabricated, "market_duke", "market1501")


@pytest.mark.parametrize("target", ["market_duke", "joined:market1501+dukemtmcreid"])
def test_nothing_can_be_tested_on_it(target, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = rf"'{target.replace('+', '.')}', which has training images only.* parts \(market1501, dukemtmcreid\)"
    with pytest.raises(ValueError, match=message):
        manager(tmp_path, "market1501", target)
    with pytest.raises(ValueError, match=message):
        ImageDataManager(root=str(tmp_path), sources=target)
    assert main(["-s", "market1501", "-t", target]) == 1
    assert "ConfigError: data.targets names" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nor_on_a_training_set_of_the_host():
    with pytest.raises(ConfigError, match="'cuhksysu', which has training images only.* Test .* on one of market1501"):
        configure(parse(["-t", "cuhksysu"]))


def test_test_images_are_not_trained_on(tiny_root):
    ensure_joined([BOTH])
    for use in (
        lambda: manager(tiny_root, BOTH, combineall=True),
        lambda: configure(parse(["-s", BOTH, "data.combineall", "True"])),
        lambda: host.image_datasets()[BOTH](root=str(tiny_root), combineall=True),
    ):
        with pytest.raises(ValueError, match=r"^(data\.)?combineall True trains on query and gallery images too"):
            use()


def test_nobody_is_trained_as_two(tmp_path):
    for sources in (["market1501", "market_duke"], ["market_duke", "joined:dukemtmcreid+grid"]):
        with pytest.raises(ValueError, match="each of its people would be trained as two"):
            manager(tmp_path, sources, "grid")


def test_a_run(tmp_path, tiny_root):
    arguments = ["--root", str(tiny_root), "-s", BOTH, "-t", TINY, "model.name", "osnet_x0_25_ptl", "train.max_epoch"]
    small = ["data.height", "64", "data.width", "32", "data.workers", "0", "train.batch_size", "4"]
    run = [*arguments, "1", *small, "model.pretrained", "False", "data.save_dir", str(tmp_path / "log")]
    assert main(run) == 0
    assert BOTH in (tmp_path / "log" / "config.yaml").read_text()
