"""People of several sources, and of the sets of ``combineall``, stay apart whatever their numbers."""

import re

import pytest
import torchreid
from conftest import manager_of
from PIL import Image

from torchreid_ptl import host
from torchreid_ptl.data.names import check_use


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Registers data sets by the numbers of their people in training, query and gallery; two images of each."""

    def add(name, train, query=(50, 51), gallery=(50, 51)):
        def side(label, people, cameras):
            images = [(pid, camera) for pid in people for camera in cameras]
            paths = [tmp_path / f"{name}_{label}_{pid}_{camera}.jpg" for pid, camera in images]
            for path in paths:
                Image.new("RGB", (8, 16)).save(path)
            return [(str(path), pid, camera) for path, (pid, camera) in zip(paths, images, strict=True)]

        class Listed(torchreid.data.ImageDataset):
            def __init__(self, root="", **kwargs):
                super().__init__(side("t", train, (0, 1)), side("q", query, (0,)), side("g", gallery, (1,)), **kwargs)

        monkeypatch.setitem(host.image_datasets(), name, Listed)

    return lambda sources, targets, **options: manager_of(
        tmp_path, sources=sources, targets=targets, batch_size_train=4, **options
    ), add


@pytest.mark.parametrize("sources", [["gap", "dense"], ["dense", "gap"], ["gap", "far", "dense"]])
def test_gaps_in_the_numbers_of_a_source_merge_nobody(listed, sources, capsys):
    manager, add = listed
    people = {"gap": (2, 5, 9, 11), "dense": range(6), "far": (1000, 1001)}
    for name in people:
        add(name, people[name])
    made = manager(sources, ["dense"])
    images = made.train_set.data
    printed = re.findall(r"# source ids +: (\d+)", capsys.readouterr().out)
    expected = sum(len(people[name]) for name in sources)
    assert (made.num_train_pids, printed) == (expected, [str(expected)])
    assert sorted({pid for _, pid, *_ in images}) == list(range(expected))
    names = {}
    for path, pid, *_ in images:
        names.setdefault(pid, set()).add(path.rsplit("_", 1)[0])
    assert [len(each) for each in names.values()] == [1] * expected


def test_combineall_merges_nobody_and_takes_queries_that_no_gallery_has(listed):
    manager, add = listed
    add("gap", (2, 5, 9), query=(50, 51, 77), gallery=(50, 51, 60))
    add("other", range(4))
    made = manager(["gap"], ["other"], combineall=True)
    assert made.num_train_pids == 3 + 4
    assert len(made.train_set.data) == 6 + 3 + 3
    by_person = {}
    for path, pid, *_ in made.train_set.data:
        by_person.setdefault(pid, set()).add(path.rsplit("_", 2)[1])
    assert len(by_person) == 7
    assert torchreid.data.ImageDataset.combine_all.__module__.startswith("torchreid.")


def test_a_source_twice_is_refused(listed):
    _, add = listed
    add("dense", range(4))
    with pytest.raises(ValueError, match=r"sources are dense, dense, and dense is named twice: each .* Name it once"):
        check_use(["dense", "dense"], ["dense"])


def test_combineall_is_refused_for_a_target_among_the_sources(listed):
    _, add = listed
    add("dense", range(4))
    with pytest.raises(ValueError, match=r"combineall True trains on the query and gallery images of dense too, which"):
        check_use(["dense"], ["dense"], combineall=True)
