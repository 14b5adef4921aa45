"""Parts of training sets, and names of data sets."""

import pickle
import random
import re
from collections import Counter

import pytest
import torchreid
from helpers import configure, configure_chain, main, parse
from PIL import Image

from torchreid_ptl import host
from torchreid_ptl.cli.arguments import asked
from torchreid_ptl.cli.evaluate import read as read_evaluation
from torchreid_ptl.config.checks import validate
from torchreid_ptl.config.loading import ConfigError, load_config
from torchreid_ptl.data.drawn import Recipe, TinyDrawnPedestrians
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.names import check_use, ensure_registered, sources_to_test, wholes_of
from torchreid_ptl.data.parts import Part, cut, held_out, part_of
from torchreid_ptl.data.preflight import check_folders
from torchreid_ptl.runs.evaluate import configure_test

TINY, OTHER = "drawn_pedestrians_tiny", "drawn_tiny_too"


class OtherTiny(TinyDrawnPedestrians):
    """Another population before other cameras."""

    dataset_dir = OTHER
    recipe = Recipe(seed=2, train_ids=3, test_ids=2, distractor_ids=0, cameras=3, images_per_camera=2)


@pytest.fixture(autouse=True)
def _table():
    """The table of data sets is as it was afterwards, in which a second tiny set is registered."""
    table = host.image_datasets()
    before = dict(table)
    table[OTHER] = OtherTiny
    yield
    table.clear()
    table.update(before)


def part(text):
    """A part of the set 'x', for example 'class30-rest'."""
    kind, percent, rest = re.fullmatch("([a-z]+)([0-9]+)(-rest)?", text).groups()
    return Part(kind, int(percent), bool(rest), "x")


def images(sizes, folder="/data/x"):
    """As many images of each identity as said, over two cameras."""
    return [
        (f"{folder}/train/{pid:04d}_{index:02d}.jpg", pid, index % 2, 0)
        for pid, size in enumerate(sizes)
        for index in range(size)
    ]


def names(train):
    return {image[0].rpartition("/")[2] for image in train}


def people(train):
    return {name[:4] for name in names(train)}


TWENTY = images([1 + number % 7 for number in range(20)])


@pytest.mark.parametrize(
    ("total", "percent", "count"),
    [
        (10, 30, 3),
        (751, 30, 225),
        (702, 30, 211),
        (5, 30, 2),
        (5, 10, 1),
        (4, 37, 1),
        (4, 38, 2),
        (20, 99, 20),
        (3, 50, 2),
    ],
)
def test_exact_shares_of_identities(total, percent, count):
    whole = images([2] * total)
    first = cut(whole, part(f"class{percent}"))
    assert len(people(first)) == count
    assert len(first) == 2 * count  # all their images
    if count < total:
        assert people(cut(whole, part(f"class{percent}-rest"))) == people(whole) - people(first)


@pytest.mark.parametrize(
    ("size", "percent", "count"),
    [
        (10, 30, 3),
        (1, 30, 1),
        (2, 30, 1),
        (3, 30, 1),
        (4, 30, 1),
        (5, 30, 2),
        (2, 99, 1),
        (10, 1, 1),
        (10, 99, 9),
        (7, 50, 4),
    ],
)
def test_exact_shares_of_the_images_of_each_identity(size, percent, count):
    whole = images([size, size, 20])
    first, rest = (cut(whole, part(f"data{percent}{other}")) for other in ("", "-rest"))
    assert [Counter(name[:4] for name in names(first))[pid] for pid in ("0000", "0001")] == [count, count]
    assert names(first) | names(rest) == names(whole)
    assert not names(first) & names(rest)
    assert len(people(rest)) == (3 if size > 1 else 1)


@pytest.mark.parametrize("kind", ["class", "data"])
def test_parts_are_nested_and_the_rest_is_what_is_left(kind):
    before = set()
    for percent in range(3, 98):
        first, rest = (names(cut(TWENTY, part(f"{kind}{percent}{other}"))) for other in ("", "-rest"))
        assert before <= first
        assert first | rest == names(TWENTY)
        assert not first & rest
        before = first
    assert before != names(cut(TWENTY, part(f"{kind}3")))


@pytest.mark.parametrize("name", ["class30", "class30-rest", "data30", "data30-rest", "holdout30"])
def test_the_choice_depends_on_nothing_but_the_images(name):
    chosen = cut(TWENTY, part(name))
    elsewhere = images([1 + number % 7 for number in range(20)], folder="relative/other name/deeper")
    assert names(cut(elsewhere, part(name))) == names(chosen)
    renumbered = [(path, 900 - 7 * pid, camid, dsetid) for path, pid, camid, dsetid in TWENTY]
    random.Random(3).shuffle(renumbered)
    again = cut(renumbered, part(name))
    assert sorted(again) == sorted(chosen)  # labels too
    assert [image[0] for image in again] == [
        image[0] for image in renumbered if image[0].rpartition("/")[2] in names(again)
    ]


def test_the_choice_stays_what_it_was():
    """Parts are named in papers and logs: another order of identities or images would be another part."""
    whole = images([4] * 10)
    assert people(cut(whole, part("class30"))) == {"0004", "0008", "0009"}
    first = names(cut(whole, part("data30")))
    assert {name for name in first if name < "0003"} == {"0000_03.jpg", "0001_00.jpg", "0002_02.jpg"}


def test_an_order_drawn_and_not_that_of_names():
    whole = images([2] * 100)
    assert people(cut(whole, part("class50"))) != {f"{pid:04d}" for pid in range(50)}
    cameras = Counter(image[2] for image in cut(images([10] * 100), part("data50")))
    assert min(cameras.values()) > 150  # of 500; a camera is not cut away


def test_labels_have_no_gaps_and_cameras_and_sets_stay():
    whole = [(path, pid, camid + 3, 5) for path, pid, camid, _ in TWENTY]
    kept = cut(whole, part("class30"))
    assert {image[1] for image in kept} == set(range(6))
    facts = {image[0]: image[2:] for image in whole}
    assert all(facts[image[0]] == image[2:] for image in kept)
    by_label = {image[1]: image[0].rpartition("/")[2][:4] for image in kept}
    assert sorted(by_label.values()) == [by_label[label] for label in range(6)]


def test_an_image_that_is_listed_twice_is_in_one_part():
    twice = images([4, 4]) + images([4, 4])[:3]
    first, rest = (cut(twice, part(f"data50{other}")) for other in ("", "-rest"))
    assert len(first) + len(rest) == 11
    assert (len(names(first)), len(names(rest))) == (4, 4)


@pytest.mark.parametrize(
    ("sizes", "name", "message"),
    [
        ([2] * 4, "class12", "'class12:x' would have no identity: 12 percent of 4 are 0, rounded. Choose at least 13"),
        ([2] * 4, "class88-rest", "'class88-rest:x' would have no identity: 88 percent of 4 are 4.* Choose at most 87"),
        ([5], "class49", "Choose at least 50"),
        ([5], "class50-rest", "Choose at most 49"),
        ([1, 1, 1], "data30-rest", "would have no image: every identity of x has one .*: class30-rest:x"),
        (
            [2] * 4,
            "holdout12",
            "'holdout12:x' would have no identity to test on: 12 percent of 4 are 0.* Choose at least 13",
        ),
        (
            [2] * 4,
            "holdout88",
            "'holdout88:x' would have no identity to train on: 88 percent of 4 are 4.* Choose at most 87",
        ),
        ([5], "holdout49", "no identity to test on: .* Choose a data set with more identities"),
        ([5], "holdout50", "no identity to train on: .* Choose a data set with more identities"),
    ],
)
def test_empty_parts(sizes, name, message):
    with pytest.raises(ValueError, match=message):
        cut(images(sizes), part(name))


def test_the_bounds_that_an_error_gives():
    for total in (1, 2, 3, 4, 7, 60):
        least, most = -(-50 // total), (100 * total - 51) // total
        assert cut(images([1] * total), part(f"class{least}"))
        assert cut(images([1] * total), part(f"class{most}-rest"))
        assert total == 1 or all(cut(images([1] * total), part(f"holdout{bound}")) for bound in (least, most))


@pytest.mark.parametrize("percent", [10, 20, 50, 90])
def test_a_held_part_trains_on_the_rest_and_is_tested_on_the_first_part(percent):
    first, rest = (cut(TWENTY, part(f"class{percent}{other}")) for other in ("", "-rest"))
    assert cut(TWENTY, part(f"holdout{percent}")) == rest
    query, gallery = held_out(TWENTY, part(f"holdout{percent}"))
    assert gallery == first  # labels too
    assert set(query) <= set(gallery)
    assert not people(gallery) & people(rest)


def test_queries_are_the_first_image_by_each_camera_of_people_whom_two_cameras_saw():
    cameras = [(1, 0, 0, 1), (0, 0), (4, 2, 2, 3)]  # in turn, by the order of the images' names
    firsts = [("0", "1"), (), ("0", "1", "3")]
    whole = [
        (f"/x/{pid % 2}/{pid:02d}_{index}.jpg", pid, camid, 0)
        for pid in range(30)
        for index, camid in enumerate(cameras[pid % 3])
    ]
    held = {image[1]: image for image in whole if image[0] in {i[0] for i in cut(whole, part("class50"))}}
    assert {pid % 3 for pid in held} == {0, 1, 2}
    for order in (whole, whole[::-1]):
        query, gallery = held_out(order, part("holdout50"))
        assert names(query) == {f"{pid:02d}_{index}.jpg" for pid in held for index in firsts[pid % 3]}
        assert len(query) == len(names(query))
        assert {int(name[:2]) for name in names(gallery)} == set(held)
        assert {image[0]: image[2:] for image in query}.items() <= {image[0]: image[2:] for image in whole}.items()


def test_a_gallery_has_an_image_once_that_is_listed_twice():
    query, gallery = held_out(TWENTY + TWENTY, part("holdout30"))
    assert (query, gallery) == held_out(TWENTY, part("holdout30"))
    assert len(gallery) == len(names(gallery))


def test_the_held_out_people_stay_who_they_were():
    query, gallery = held_out(images([4] * 10), part("holdout30"))
    assert people(gallery) == {"0004", "0008", "0009"}
    assert names(query) == {f"{pid}_{index}.jpg" for pid in people(gallery) for index in ("00", "01")}


def test_nobody_to_search_for():
    alone = [(path, pid, pid % 2, dsetid) for path, pid, _, dsetid in TWENTY]
    message = (
        "'holdout20:x' would have no query: two cameras saw none of the 4 people of class20:x. Choose a larger "
        "percentage than 20; or train on class20-rest:x and test on another data set"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        held_out(alone, part("holdout20"))


def manager(root, sources, targets=TINY, **options):
    options = {"height": 64, "width": 32, "batch_size_train": 4, "workers": 0, "use_gpu": False, **options}
    return ImageDataManager(root=str(root), sources=sources, targets=targets, **options)


def training(built):
    return built.train_loader.dataset.dataset.data


def paths(built):
    return {image[0] for image in training(built)}


@pytest.mark.parametrize("kind", ["class", "data"])
def test_two_parts_in_a_data_manager(tiny_root, kind):
    whole, first, rest = (manager(tiny_root, f"{head}{TINY}") for head in ("", f"{kind}50:", f"{kind}50-rest:"))
    assert paths(first) | paths(rest) == paths(whole)
    assert (len(training(first)), len(training(rest))) == (8, 8)
    assert first.num_train_pids == rest.num_train_pids == (2 if kind == "class" else 4)
    assert next(iter(first.train_loader))["img"].shape == (4, 3, 64, 32)
    assert {image[1] for image in training(rest)} == set(range(rest.num_train_pids))


def test_query_and_gallery_are_the_wholes(tiny_root):
    name = f"class50:{TINY}"
    built, whole = manager(tiny_root, name, None), manager(tiny_root, TINY)
    assert list(built.test_loader) == [name]
    for side in ("query", "gallery"):
        assert built.test_loader[name][side].dataset.dataset.data == whole.test_loader[TINY][side].dataset.dataset.data
        assert built.test_dataset[name][side] == whole.test_dataset[TINY][side]
    assert manager(tiny_root, OTHER, name, combineall=True).num_train_pids == 3 + 2


def test_a_held_part_in_a_data_manager(tiny_root):
    name = f"holdout50:{TINY}"
    built = manager(tiny_root, name, name)
    assert training(built) == training(manager(tiny_root, f"class50-rest:{TINY}"))
    query, gallery = (built.test_loader[name][side].dataset.dataset.data for side in ("query", "gallery"))
    assert (len(query), len(gallery)) == (4, 8)
    held = manager(tiny_root, f"class50:{TINY}")
    assert {image[0] for image in gallery} == paths(held)
    assert {image[0] for image in query} < paths(held)
    assert built.test_dataset[name] == {"query": query, "gallery": gallery}
    assert not {image[0] for image in (*query, *gallery)} & paths(built)
    assert all("bounding_box_train" in image[0] for image in (*training(built), *query, *gallery))
    assert next(iter(built.test_loader[name]["query"]))["img"].shape == (4, 3, 64, 32)


def test_held_images_are_the_data_of_their_mode(tiny_root):
    name = f"holdout50:{TINY}"
    ensure_registered([name])
    modes = {
        mode: host.image_datasets()[name](root=str(tiny_root), mode=mode, verbose=False)
        for mode in ("train", "query", "gallery")
    }
    for mode, dataset in modes.items():
        assert dataset.data == getattr(dataset, mode)
        assert (dataset.train, dataset.query, dataset.gallery) == tuple(
            getattr(modes["train"], side) for side in ("train", "query", "gallery")
        )
        assert pickle.loads(pickle.dumps(dataset)).data == dataset.data
    assert list(map(len, (modes["train"], modes["query"], modes["gallery"]))) == [8, 4, 8]


def test_a_held_part_of_a_set_for_training_only_is_a_target(tiny_root):
    class TrainingOnly(OtherTiny):
        train_only = True

        def __init__(self, mode="train", **kwargs):
            assert mode == "train"
            super().__init__(mode=mode, **kwargs)
            self.query = self.gallery = []

    host.image_datasets()[OTHER] = TrainingOnly
    name = f"holdout67:{OTHER}"
    built = manager(tiny_root, name, name, batch_size_train=2)
    assert not host.is_train_only(name)
    assert (built.num_train_pids, len(built.test_loader[name]["query"].dataset)) == (1, 6)
    assert host.is_train_only(f"joined:{name}+{TINY}") is False  # not registered
    ensure_registered([f"joined:{name}+{TINY}"])
    assert host.is_train_only(f"joined:{name}+{TINY}")


def test_the_hosts_own_data_manager_takes_it(tiny_root, capsys):
    name = f"data50-rest:{TINY}"
    ensure_registered([name])
    options = {"root": str(tiny_root), "height": 64, "width": 32, "workers": 0, "use_gpu": False}
    built = torchreid.data.ImageDataManager(sources=name, batch_size_train=4, **options)
    assert (built.num_train_pids, len(built.train_loader.dataset)) == (4, 8)
    assert len(built.test_loader[name]["query"].dataset) == 6
    assert f"=> Loaded {name}" in capsys.readouterr().out
    again = pickle.loads(pickle.dumps(built.train_loader.dataset))
    assert again.train == built.train_loader.dataset.train


def test_the_whole_gets_what_the_manager_says(monkeypatch, tiny_root):
    seen = []

    class Recording(OtherTiny):
        def __init__(self, **kwargs):
            seen.append(kwargs)
            super().__init__(**kwargs)

    host.image_datasets()[OTHER] = Recording
    manager(tiny_root, f"class67:{OTHER}", cuhk03_labeled=True, market1501_500k=True, split_id=3)
    assert seen[0].items() >= {"cuhk03_labeled": True, "market1501_500k": True, "split_id": 3, "mode": "train"}.items()


def test_people_apart_may_be_trained_on_together(tiny_root):
    built = manager(tiny_root, [f"class50:{TINY}", f"class50-rest:{TINY}"])
    assert paths(built) == paths(manager(tiny_root, TINY))
    assert built.num_train_pids == 4
    check_use([f"class30:{TINY}", f"class50-rest:{TINY}", f"data30:{OTHER}"], [TINY])


@pytest.mark.parametrize(
    "sources",
    [
        ["class30:grid", "grid"],
        ["data30:grid", "grid"],
        ["data30:grid", "data30-rest:grid"],
        ["class30:grid", "class50:grid"],
        ["class50:grid", "class30-rest:grid"],
        ["class30-rest:grid", "class50-rest:grid"],
        ["class30:grid", "data30:grid"],
        ["class30:grid", "class30:grid"],
        ["holdout30:grid", "grid"],
        ["holdout30:grid", "holdout30:grid"],
        ["holdout30:grid", "class30-rest:grid"],
        ["holdout30:grid", "class50:grid"],
        ["holdout30:grid", "holdout50:grid"],
        ["holdout30:grid", "data30:grid"],
        ["joined:holdout30:grid+viper", "grid"],
        ["class30:market1501", "market_duke"],
        ["joined:class30:grid+viper", "grid"],
        ["joined:class30:grid+grid"],
        ["joined:data30:grid+data30-rest:grid"],
    ],
)
def test_nobody_is_trained_as_two(sources, tmp_path):
    for use in (lambda: manager(tmp_path, sources), lambda: configure(parse(["-s", *sources, "-t", "viper"]))):
        with pytest.raises(ValueError, match="(each of them|each of its people) would be trained as two. Name"):
            use()


@pytest.mark.parametrize(
    "source",
    [
        "grid",
        "class10:grid",
        "class20:grid",
        "class30:grid",
        "class19-rest:grid",
        "holdout19:grid",
        "data1:grid",
        "data99-rest:grid",
        "joined:grid+viper",
        "joined:prid+class30:grid",
    ],
)
def test_nobody_who_is_held_out_is_trained_on(source, tmp_path):
    piece = next(word for word in re.split(r"[+]|joined:", source) if "grid" in word)
    inside = piece if piece == source else f"{piece} in {source}"
    message = (
        "data.targets names holdout20:grid, which is tested on the training images of class20:grid, and data.sources "
        f"trains on people in them, with {inside}: the scores would not be those of people never seen. Train on "
        "holdout20:grid or on another data set, or test on grid"
    )
    in_python = message.replace("data.", "")
    with pytest.raises(ValueError, match=re.escape(in_python)):
        manager(tmp_path, ["ilids", source], ["viper", "holdout20:grid"])
    for use in (
        lambda: configure(parse(["-s", "ilids", source, "-t", "viper", "holdout20:grid"])),
        lambda: configure_chain(parse(["-t", "holdout20:grid", "chain", f"['holdout20:grid', '{source}']"])),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            use()


@pytest.mark.parametrize(
    ("sources", "targets"),
    [
        (["holdout20:grid"], ["holdout20:grid"]),
        (["holdout20:grid"], ["holdout20:grid", "grid", "viper"]),
        (["holdout30:grid"], ["holdout20:grid", "holdout30:grid"]),
        (["class20-rest:grid", "viper"], ["holdout20:grid"]),
        (["class21-rest:grid"], ["holdout20:grid"]),
        (["joined:holdout20:grid+viper"], ["holdout20:grid", "holdout10:prid"]),
        (["holdout20:grid", "class20:grid"], ["grid"]),
        (["market_duke"], ["holdout20:grid"]),
        (["holdout20:cuhksysu"], ["grid"]),
    ],
)
def test_sources_and_targets_that_go_with_held_parts(sources, targets):
    assert configure(parse(["-s", *sources, "-t", *targets])).data.targets == targets


def test_a_test_alone_loads_sources_that_no_target_is_tested_on():
    assert sources_to_test(["grid", "class30:viper"]) == ["grid", "class30:viper"]
    targets = ["grid", "holdout20:grid", "holdout30:grid", "holdout25:grid"]
    assert sources_to_test(targets) == ["holdout30:grid"]
    config = configure_test(asked(read_evaluation(["-t", *targets])), "osnet_x0_25", "imagenet")
    assert (config.data.sources, config.data.targets) == (["holdout30:grid"], targets)
    check_use(config.data.sources, config.data.targets)


def test_parts_in_a_joined_set(tiny_root):
    name = f"joined:class50:{TINY}+data50:{OTHER}"
    built = manager(tiny_root, name)
    assert wholes_of(name) == (TINY, OTHER)
    assert built.num_train_pids == 2 + 3
    assert Counter(image[3] for image in training(built)) == {0: 8, 1: 9}
    assert manager(tiny_root, f"joined:class50:{TINY}+class50-rest:{TINY}").num_train_pids == 4


def test_cameras_of_sources_stay_apart_where_one_lacks_a_camera(tmp_path):
    for folder, train in {
        "market1501/Market-1501-v15.09.15": ["0002_c1", "0002_c3", "0007_c1", "0007_c3"],
        "dukemtmc-reid/DukeMTMC-reID": ["0002_c1", "0002_c2", "0005_c1", "0005_c2"],
    }.items():
        for side, files in {
            "bounding_box_train": train,
            "query": ["0100_c1"],
            "bounding_box_test": ["0100_c2"],
        }.items():
            (tmp_path / folder / side).mkdir(parents=True)
            for index, file in enumerate(files):
                Image.new("RGB", (8, 16)).save(tmp_path / folder / side / f"{file}_{index}.jpg")
    both = ["class50:market1501", "class50:dukemtmcreid"]
    built = manager(tmp_path, both, ["market1501"], batch_size_train=2)
    assert sorted({(image[3], image[2]) for image in training(built)}) == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert built.num_train_cams == 4
    alone = manager(tmp_path, both[:1], ["market1501"], batch_size_train=2)
    assert {image[2] for image in training(alone)} == {0, 2}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "class30:markt1501",
            "cuts the unknown data set 'markt1501': did you mean 'class30:market1501'. Allowed: .*msmt17",
        ),
        ("data30-rest:zzzzzzzzzz", "cuts the unknown data set 'zzzzzzzzzz': Allowed: market1501"),
        ("class30:", "'class30:' names no data set: did you mean 'class30:NAME'.* P from 1 to 99"),
        ("class0:grid", "'class0:grid' names no data set: did you mean 'class1:grid'. Allowed: classP:NAME"),
        ("class100:grid", "did you mean 'class99:grid'"),
        ("class-5:grid", "did you mean 'class5:grid'"),
        ("class05:grid", "did you mean 'class5:grid'"),
        ("class30rest:grid", "did you mean 'class30-rest:grid'"),
        ("data30_rest:grdi", "did you mean 'data30-rest:grid'"),
        ("data:grid", "did you mean 'data30:grid'"),
        ("klass30:grid", "did you mean 'class30:grid'"),
        ("class٣٠:grid", "names no data set"),
        ("joind:grid+viper", "did you mean 'joined:grid.viper'"),
        ("class30:market_duke", "which is joined; cut what it joins: joined:class30:market1501.class30:dukemtmcreid"),
        ("class30:joined:grid+viper", "'joined:grid.viper', which is joined.* joined:class30:grid.class30:viper"),
        ("class30:data30:grid", "cuts 'data30:grid', which is a part itself; cut a whole data set"),
        ("joined:class30:grdi+viper", "'class30:grdi' cuts the unknown data set 'grdi': did you mean 'class30:grid'"),
        ("joined:class300:grid+viper", "did you mean 'class99:grid'"),
        (
            "holdout20-rest:grid",
            "'holdout20-rest:grid' names no data set: did you mean 'holdout20:grid'. Allowed: .*, holdoutP:NAME",
        ),
        ("holdout20_rest:grdi", "did you mean 'holdout20:grid'"),
        ("holdout0:grid", "did you mean 'holdout1:grid'"),
        ("holdout100:grid", "did you mean 'holdout99:grid'"),
        ("hold20:grid", "did you mean 'holdout20:grid'"),
        ("holdout:grid", "did you mean 'holdout30:grid'"),
        ("holdout20:markt1501", "cuts the unknown data set 'markt1501': did you mean 'holdout20:market1501'. Allowed"),
        (
            "holdout20:market_duke",
            "which is joined; cut what it joins: joined:holdout20:market1501.",
        ),
        ("holdout20:class30:grid", "cuts 'class30:grid', which is a part itself; cut a whole data set"),
        ("class30:holdout20:grid", "cuts 'holdout20:grid', which is a part itself; cut a whole data set"),
    ],
)
def test_wrong_names(name, message, tmp_path):
    for use in (
        lambda: ensure_registered([name]),
        lambda: check_folders(str(tmp_path), [name]),
        lambda: manager(tmp_path, name),
        lambda: configure(parse(["-s", name])),
        lambda: configure(parse(["-t", name])),
        lambda: configure_chain(parse(["-t", "grid", "chain", f"['{name}', grid]"])),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert name not in host.image_datasets()


def test_the_folder_of_the_whole_is_looked_at(tmp_path, tiny_root):
    with pytest.raises(FileNotFoundError, match="The folder of data set 'msmt17' is missing"):
        check_folders(str(tmp_path), ["class30:msmt17"])
    with pytest.raises(FileNotFoundError, match="The folder of data set 'grid' is missing"):
        manager(tiny_root, TINY, f"joined:{TINY}+data30-rest:grid".partition("+")[2])
    check_folders(str(tmp_path), [f"class30:{TINY}"])
    assert list(tmp_path.iterdir()) == []


def test_test_images_are_not_trained_on(tiny_root):
    name = f"class50:{TINY}"
    ensure_registered([name])
    for use in (
        lambda: manager(tiny_root, name, combineall=True),
        lambda: configure(parse(["-s", name, "data.combineall", "True"])),
        lambda: host.image_datasets()[name](root=str(tiny_root), combineall=True),
    ):
        with pytest.raises(
            ValueError, match=rf"^(data\.)?combineall True .*'{name}' is a part .* Set (data\.)?combineall False"
        ):
            use()


def test_a_held_part_has_no_test_images_to_train_on():
    message = (
        "data.combineall True .*'holdout50:grid' is a part .*, tested on the training images of class50:grid. Set data"
    )
    with pytest.raises(ConfigError, match=message):
        configure(parse(["-s", "holdout50:grid", "-t", "holdout50:grid", "data.combineall", "True"]))


def test_a_part_of_a_set_for_training_only_is_no_target():
    with pytest.raises(ConfigError, match="'class30:cuhksysu', which has training images only"):
        configure(parse(["-t", "class30:cuhksysu"]))
    configure(parse(["-s", "class30:cuhksysu", "-t", "grid"]))


def test_the_same_test_is_not_made_twice():
    for targets in (["grid", "class30:grid"], ["data30:grid", "viper", "class30-rest:grid"]):
        with pytest.raises(ConfigError, match="which have the same query and gallery.* Test on grid alone"):
            configure(parse(["-t", *targets]))
    with pytest.raises(ConfigError, match="same query and gallery.* Test on holdout20:grid alone"):
        configure(parse(["-s", "viper", "-t", "holdout20:grid", "holdout20:grid"]))


def test_a_part_that_would_be_empty_is_an_error_of_one_line(tiny_root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--root", str(tiny_root), "-s", f"class5:{TINY}", "-t", TINY, "model.pretrained", "False"]) == 1
    assert f"ValueError: 'class5:{TINY}' would have no identity" in capsys.readouterr().err


def test_from_yaml_and_from_the_command_line(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("data:\n  sources: [class30:market1501]\n  targets: [market1501]\n")
    validate(load_config(path))
    assert part_of("class30:market1501") == Part("class", 30, False, "market1501")
    assert configure(parse(["-s", "data7-rest:viper", "train.lr", "0.1"])).data.sources == ["data7-rest:viper"]
    assert str(part_of("data7-rest:viper")) == "data7-rest:viper"
    assert part_of("viper") is None


def test_stages_of_a_chain_are_tested_on_the_whole():
    chain = configure_chain(
        parse(["chain", "['class30:grid', 'joined:class30:viper+prid', 'class30-rest:grid', grid]"])
    )
    assert chain.common.data.targets == ["grid"]
    held = configure_chain(parse(["chain", "['class30:viper', 'holdout20:grid', 'joined:holdout20:grid+prid']"]))
    assert held.common.data.targets == ["viper", "holdout20:grid"]
    assert [stage.folder for stage in chain.stages][::2] == ["1-class30-grid", "3-class30-rest-grid"]


def test_somebody_elses_name_is_left_alone(tiny_root):
    host.image_datasets()["class30:mine"] = OtherTiny
    assert manager(tiny_root, "class30:mine").num_train_pids == 3
    assert part_of("class30:mine") is None
    assert wholes_of("class30:mine") == ("class30:mine",)


@pytest.mark.parametrize("kind", ["class", "holdout"])
def test_a_run_and_its_dry_run(tmp_path, tiny_root, kind):
    name = f"{kind}50:{TINY}"
    small = ["data.height", "64", "data.width", "32", "data.workers", "0", "train.batch_size", "4"]
    run = ["--root", str(tiny_root), "-s", name, "-t", name, "model.name", "osnet_x0_25_ptl", *small]
    run += ["train.max_epoch", "1", "model.pretrained", "False", "data.save_dir", str(tmp_path / "log")]
    assert main([*run, "--dry-run"]) == 0
    assert not (tmp_path / "log").exists()
    assert main(run) == 0
    left = {path.name for path in (tmp_path / "log").iterdir()}
    assert f"queries_{kind}50-{TINY}.csv" in left
    assert not [file for file in left if ":" in file]
