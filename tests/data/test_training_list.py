"""Lists of training images."""

import random

import numpy as np
import pytest

from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.training_list import (
    NAME,
    TrainingList,
    keep_training_list,
    matching_classes,
    read_training_list,
    training_list,
    write_training_list,
)

TINY = "drawn_pedestrians_tiny"
SMALL = {"height": 64, "width": 32, "batch_size_train": 4, "workers": 0, "use_gpu": False}
IMAGES = TrainingList(("x/a.jpg", "x/b.jpg", "y/c.jpg"), (0, 1, 1), (3, 0, -1))


def listed(root, source):
    built = ImageDataManager(root=str(root), sources=source, targets=TINY, **SMALL)
    return training_list(built.train_loader.dataset.dataset.data, str(root))


def test_round_trip(tmp_path):
    names = ("a,b.jpg", 'quoted "name".jpg', "ümläut 名.jpg", " space .jpg", "two\nlines\r.jpg", "\udcff.jpg")
    images = TrainingList(names, (0, 1, 2, 0, 1, 2), (0, 1, 2, 3, 4, -5))
    write_training_list(tmp_path / "new" / NAME, images)
    assert read_training_list(str(tmp_path / "new" / NAME)) == images
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]
    assert (images.num_classes, len(images)) == (3, 6)


def test_what_the_file_looks_like(tmp_path):
    write_training_list(tmp_path / NAME, IMAGES)
    assert (tmp_path / NAME).read_bytes() == b"path,label,camera\nx/a.jpg,0,3\nx/b.jpg,1,0\ny/c.jpg,1,-1\n"


def test_columns_in_another_order_and_others_beside_them(tmp_path):
    text = "\ufeffcamera,note,label,path\r\n3,,0,x/a.jpg\r\n0,hm,1,x/b.jpg\r\n\r\n-1,,1,y/c.jpg\r\n"
    (tmp_path / NAME).write_bytes(text.encode())
    assert read_training_list(tmp_path / NAME) == IMAGES


def test_paths_are_relative_to_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = [(str(tmp_path / "reid" / "set" / "a.jpg"), 0, 1, 0), ("reid/set/b.jpg", 1, 0, 0), ("c.jpg", 2, 0, 0)]
    assert training_list(train, "reid").paths == ("set/a.jpg", "set/b.jpg", "../c.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert training_list(train[:1], "~/reid").paths == ("set/a.jpg",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column path, label, camera; its first line is to name path, label, camera"),
        ("path,label\na.jpg,0\n", "has no column camera"),
        ("a.jpg,0,1\n", "has no column path, label, camera"),
        ("path,label,camera\n", "lists no images"),
        ("path,label,camera\na.jpg,0,0\nb.jpg,one,0\n", "Line 3 of .*: the label is 'one'; classes are whole numbers"),
        ("path,label,camera\na.jpg,-1,0\n", "Line 2 of .*: the label is '-1'"),
        ("path,label,camera\na.jpg,1.0,0\n", "Line 2 of .*: the label is '1.0'"),
        ("path,label,camera\na.jpg,,0\n", "Line 2 of .*: the label is ''"),
        ("path,label,camera\na.jpg,99999999999999999999,0\n", "Line 2 of .*: the label is '9"),
        ("path,label,camera\na.jpg,0,left\n", "Line 2 of .*: the camera is 'left'; expected a whole number"),
        ("path,label,camera\na.jpg,0\n", "Line 2 of .* has 2 fields and the first line 3"),
        ("path,label,camera\na,b.jpg,0,0\n", "Line 2 of .* has 4 fields and the first line 3"),
        ("path,label,camera\n,0,0\n", "Line 2 of .* names no image"),
        ("path,label,camera\na.jpg,0,0\nb.jpg,2,0\n", "has no image of class 1, but of class 2"),
        ("path,label,camera\na.jpg,1,0\n", "has no image of class 0"),
        (
            "path,label,camera\na.jpg,0,0\nb.jpg,1,0\na.jpg,1,0\n",
            "Line 4 .* a.jpg is of class 1, and of class 0 in line 2",
        ),
        ('path,label,camera\n"a\n.jpg",0,0\nb.jpg,x,0\n', "Line 4 of"),
        ("path,label,camera\n" + "a" * 200_000 + ",0,0\n", "is no CSV file: field larger"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_training_list(tmp_path / NAME)


def test_a_missing_file(tmp_path):
    for path in (tmp_path / NAME, tmp_path):
        with pytest.raises(FileNotFoundError, match="No list of training images .* a run that trains leaves"):
            read_training_list(path)


def test_matching_by_common_images():
    old = TrainingList(("a", "b", "c", "d"), (2, 0, 1, 1), (0, 0, 0, 0))
    new = TrainingList(("e", "d", "x", "b", "c", "y", "f"), (0, 1, 1, 2, 1, 3, 0), (0,) * 7)
    found = matching_classes(old, new)
    assert found.dtype == np.int64
    assert found.tolist() == [-1, 1, 0, -1]
    assert matching_classes(new, old).tolist() == [2, 1, -1]
    assert matching_classes(old, old).tolist() == [0, 1, 2]


def test_one_person_of_the_new_list_was_two():
    new = TrainingList(("x/z.jpg", "x/a.jpg", "y/c.jpg"), (1, 0, 0), (0, 0, 0))
    with pytest.raises(
        ValueError, match="Class 0 of the new list is two .*: x/a.jpg is of class 0 there and y/c.jpg of class 1"
    ):
        matching_classes(IMAGES, new)


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        (f"data50:{TINY}", TINY, [0, 1, 2, 3]),
        (f"data50:{TINY}", f"data50-rest:{TINY}", [-1, -1, -1, -1]),
        (f"class50:{TINY}", f"class50-rest:{TINY}", [-1, -1]),
        (f"class50:{TINY}", f"class75:{TINY}", None),
        (f"class50:{TINY}", TINY, None),
    ],
)
def test_matching_of_parts(tiny_root, old, new, known):
    before, after = listed(tiny_root, old), listed(tiny_root, new)
    found = matching_classes(before, after)
    if known is not None:
        assert found.tolist() == known
        return
    assert sorted(found[found >= 0]) == [0, 1]
    person = {label: path.rpartition("/")[2][:4] for path, label in zip(before.paths, before.labels, strict=True)}
    for path, label in zip(after.paths, after.labels, strict=True):
        same = [known for known, name in person.items() if name == path.rpartition("/")[2][:4]]
        assert found[label] == (same[0] if same else -1)


def test_the_order_of_files_changes_nothing(tiny_root, monkeypatch):
    import glob

    before = listed(tiny_root, f"data50:{TINY}")
    plain = glob.glob

    def shuffled(*args, **kwargs):
        found = plain(*args, **kwargs)
        random.Random(1).shuffle(found)
        return found

    monkeypatch.setattr(glob, "glob", shuffled)
    assert listed(tiny_root, f"data50:{TINY}") == before


def test_a_training_that_goes_on_has_the_list_it_began_with(tmp_path):
    path = tmp_path / NAME
    keep_training_list(path, IMAGES, begun=True)  # the checkpoint is from elsewhere
    keep_training_list(path, IMAGES, begun=True)
    assert read_training_list(path) == IMAGES
    other = TrainingList(IMAGES.paths, (0, 1, 0), IMAGES.cameras)
    with pytest.raises(ValueError, match="line 4 of .* is 'y/c.jpg,1,-1' and would now be 'y/c.jpg,0,-1'. Restore"):
        keep_training_list(path, other, begun=True)
    longer = TrainingList((*IMAGES.paths, "z"), (*IMAGES.labels, 0), (*IMAGES.cameras, 0))
    with pytest.raises(ValueError, match="line 5 of .* is nothing more and would now be 'z,0,0'"):
        keep_training_list(path, longer, begun=True)
    assert read_training_list(path) == IMAGES
    keep_training_list(path, other, begun=False)
    assert read_training_list(path) == other
