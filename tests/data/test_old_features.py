"""Old features by the names of their images."""

import json
import os

import numpy as np
import pytest
import torch

from torchreid_ptl.data.features import FeatureFileError, save_features
from torchreid_ptl.data.in_order import loader_in_order, root_of, training_images
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.old_features import BankError, OldFeatures, list_digest, names_of
from torchreid_ptl.data.reading import BadImageError

NAMES = ["a/1.jpg", "a/2.jpg", "b/1.jpg"]


@pytest.fixture
def features():
    return torch.randn(3, 5)


def file_of(folder, paths, features, kind="npz"):
    path = folder / f"old.{kind}"
    save_features(path, features, [0] * len(features), [0] * len(features), paths)
    return path


def test_rows_by_name(features):
    bank = OldFeatures(NAMES, features)
    assert (len(bank), bank.dim, bank.fingerprint) == (3, 5, "")
    assert bank.rows(["b/1.jpg", "1.jpg", "a/1.jpg"]).tolist() == [2, -1, 0]
    assert bank.rows([]).dtype == torch.long


def test_what_was_saved_is_mapped_again(tmp_path, features):
    path = tmp_path / "deep" / "bank.npy"
    OldFeatures(NAMES, features, "of this model").save(path)
    bank = OldFeatures.load(path, "of this model")
    assert torch.equal(bank.features, features)
    assert (bank.names, bank.fingerprint) == (NAMES, "of this model")
    assert isinstance(np.load(path, mmap_mode="r"), np.memmap)
    assert bank.features.untyped_storage().nbytes() == features.untyped_storage().nbytes()
    assert sorted(os.listdir(path.parent)) == ["bank.json", "bank.npy"]
    assert OldFeatures.load(path).names == NAMES  # nothing asked for


def test_reading_a_mapped_bank_never_changes_its_file(tmp_path, features):
    path = tmp_path / "bank.npy"
    OldFeatures(NAMES, features).save(path)
    before = path.read_bytes()
    OldFeatures.load(path).features.mul_(2)
    assert path.read_bytes() == before


def test_a_bank_of_something_else_is_refused(tmp_path, features):
    path = tmp_path / "bank.npy"
    OldFeatures(NAMES, features, "one").save(path)
    with pytest.raises(
        BankError, match=r"another old model.*\(fingerprint 'one', wanted 'other'\).*another file with bank"
    ):
        OldFeatures.load(path, "other")


def _emptied(path):
    path.write_bytes(b"")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def _of_another(path):
    np.save(path, np.zeros((3, 5), np.float32))


def _an_archive(path):
    with open(path, "wb") as file:
        np.savez(file, features=np.zeros((3, 5), np.float32))


def _no_json(path):
    path.with_suffix(".json").write_text("{")


def _no_dictionary(path):
    path.with_suffix(".json").write_text("[1, 2]")


def _without_names(path):
    facts = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**facts, "names": None}))


@pytest.mark.parametrize("spoil", [_emptied, _cut, _of_another, _an_archive, _no_json, _no_dictionary, _without_names])
def test_a_damaged_bank_is_named(tmp_path, features, spoil):
    path = tmp_path / "bank.npy"
    OldFeatures(NAMES, features).save(path)
    spoil(path)
    with pytest.raises(BankError, match=r"bank\.(npy|json) .*built again"):
        OldFeatures.load(path)


@pytest.fixture
def large(tmp_path):
    """A bank of 2,000 images, 512 KiB."""
    path = tmp_path / "bank.npy"
    OldFeatures([f"set/{row}.jpg" for row in range(2000)], torch.randn(2000, 64)).save(path)
    return path


def _changed_facts(path, **changed):
    listed = path.with_suffix(".json")
    listed.write_text(json.dumps({**json.loads(listed.read_text()), **changed}))


def _rows_in_the_middle(path):
    features = np.load(path, mmap_mode="r+")
    features[1000:1003] = features[1003:1006]
    features.flush()


def _one_bit(path):
    with open(path, "r+b") as file:
        file.seek(250_000)
        byte = file.read(1)
        file.seek(250_000)
        file.write(bytes([byte[0] ^ 1]))


def _names_exchanged(path):
    names = json.loads(path.with_suffix(".json").read_text())["names"]
    _changed_facts(path, names=[names[1], names[0], *names[2:]])


def _names_of_others(path):
    _changed_facts(path, names=[f"other/{row}.jpg" for row in range(2000)])


def _another_fingerprint(path):
    _changed_facts(path, fingerprint="of another model")


@pytest.mark.parametrize(
    "spoil", [_rows_in_the_middle, _one_bit, _names_exchanged, _names_of_others, _another_fingerprint]
)
def test_every_row_and_name_of_a_bank_is_checked(large, spoil):
    OldFeatures.load(large)
    spoil(large)
    with pytest.raises(BankError, match=r"bank\.npy and bank\.json are not as they were written.*built again"):
        OldFeatures.load(large)


def test_names_of_a_bank_are_the_training_images_in_their_order(tmp_path, features):
    path = tmp_path / "bank.npy"
    OldFeatures(NAMES, features).save(path)
    OldFeatures.load(path, wanted=NAMES)
    OldFeatures.load(path, wanted=["a/0.jpg", *NAMES])  # an unreadable image has no old feature
    for wanted, strange in ((NAMES[::-1], "a/2.jpg"), (NAMES[:2], "b/1.jpg"), (["c.jpg"], "a/1.jpg")):
        with pytest.raises(BankError, match=f"bank.npy names '{strange}', which is no training image, or stands else"):
            OldFeatures.load(path, wanted=wanted)


@pytest.mark.parametrize("content", ["{}", '{"names": [1, 2], "fingerprint": "", "digest": ""}', "", "[1]"])
def test_a_bank_replaces_no_file_of_somebody_else(tmp_path, features, content):
    listed = tmp_path / "bank.json"
    listed.write_text(content)
    with pytest.raises(BankError, match=r"bank\.json, which is there already and is no list of a bank.*another file"):
        OldFeatures(NAMES, features).save(tmp_path / "bank.npy")
    assert listed.read_text() == content
    assert os.listdir(tmp_path) == ["bank.json"]


def test_a_bank_whose_names_would_be_a_folder(tmp_path, features):
    (tmp_path / "bank.json").mkdir()
    with pytest.raises(BankError, match="is no list of a bank"):
        OldFeatures(NAMES, features).save(tmp_path / "bank.npy")


def test_an_image_that_a_file_of_features_names_twice(tmp_path, features):
    paths = ["/x/a/1.jpg", "/x/a/2.jpg", "/y/a/1.jpg"]
    with pytest.raises(BankError, match=r"a/1\.jpg is the end of two paths.*/x/a/1\.jpg and /y/a/1\.jpg; leave one"):
        OldFeatures.of_file(file_of(tmp_path, paths, features), NAMES)


def test_half_a_bank_is_none(tmp_path, features):
    path = tmp_path / "bank.npy"
    OldFeatures(NAMES, features).save(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(BankError, match=r"bank\.json is missing.*another file with bank, or delete it"):
        OldFeatures.load(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no bank of old features .*bank\.npy"):
        OldFeatures.load(path)
    for act in (OldFeatures.load, OldFeatures(NAMES, features).save):
        with pytest.raises(BankError, match=r"is a file \*\.npy; got .*bank\.pt"):
            act(tmp_path / "bank.pt")


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (NAMES[:2], torch.zeros(3, 5), r"features \(N, D\) and N names, at least one; got \(3, 5\) and 2"),
        ([], torch.zeros(0, 5), "at least one"),
        (NAMES, torch.zeros(3), r"got \(3,\) and 3"),
        (["a", "b", "a"], torch.zeros(3, 5), "names a twice"),
        (NAMES, torch.tensor([[0.0], [torch.nan], [torch.inf]]), r"Old features of a/2\.jpg, b/1\.jpg are NaN"),
    ],
)
def test_what_is_no_bank(names, rows, message):
    with pytest.raises(BankError, match=message):
        OldFeatures(names, rows)


def test_a_file_that_holds_what_is_not_finite_is_named_by_image(tmp_path, features):
    path = tmp_path / "bank.npy"
    OldFeatures(NAMES, features).save(path)
    features[1, 3] = torch.nan
    paths = [f"/elsewhere/{name}" for name in NAMES]
    with pytest.raises(BankError, match=r"Old features of a/2\.jpg are NaN"):
        OldFeatures.of_file(file_of(tmp_path, paths, features), NAMES)
    rest = OldFeatures.of_file(file_of(tmp_path, paths, features), [NAMES[0], NAMES[2]])
    assert rest.names == [NAMES[0], NAMES[2]]  # nobody asks for that image


@pytest.mark.parametrize("kind", ["npz", "pt"])
def test_a_file_of_features_whose_images_were_moved(tmp_path, features, kind):
    paths = ["/old/place/b/1.jpg", "/old/place/c/1.jpg", "/old/place/a/1.jpg"]
    bank = OldFeatures.of_file(file_of(tmp_path, paths, features.half(), kind), NAMES)
    assert bank.features.dtype == torch.float32
    for name, row in (("b/1.jpg", 0), ("a/1.jpg", 2)):
        assert torch.equal(bank.features[bank.rows([name])[0]], features[row].half().float())
    assert bank.rows(["a/2.jpg"]).item() == -1
    again = OldFeatures.of_file(file_of(tmp_path, paths, features.half(), kind), NAMES)
    other = OldFeatures.of_file(file_of(tmp_path, paths, features.half() + 1, kind), NAMES)
    assert bank.fingerprint == again.fingerprint != other.fingerprint


def test_the_longest_end_of_a_path_names_its_image(tmp_path, features):
    wanted = ["1.jpg", "a/1.jpg", "b/a/1.jpg"]
    bank = OldFeatures.of_file(file_of(tmp_path, ["/x/1.jpg", "/x/b/a/1.jpg", "/y/a/1.jpg"], features), wanted)
    assert bank.rows(wanted).tolist() == [0, 2, 1]


def test_a_file_of_features_that_cannot_be_used(tmp_path, features):
    with pytest.raises(BankError, match=r"old\.npz has no 'paths': old features are looked up"):
        OldFeatures.of_file(file_of(tmp_path, [], features), NAMES)
    with pytest.raises(BankError, match=r"none of the 3 training images: it names 'x\.jpg'.*'a/1\.jpg' is wanted"):
        OldFeatures.of_file(file_of(tmp_path, ["x.jpg", "y.jpg", "z.jpg"], features), NAMES)
    with pytest.raises(FileNotFoundError, match="There is no file of features"):
        OldFeatures.of_file(tmp_path / "none.npz", NAMES)
    (tmp_path / "old.npz").write_bytes(b"nothing")
    with pytest.raises(FeatureFileError):
        OldFeatures.of_file(tmp_path / "old.npz", NAMES)


def test_names_do_not_depend_on_where_the_root_is(tmp_path, monkeypatch):
    assert names_of([str(tmp_path / "set" / "a.jpg"), "/tmpx/b.jpg"], tmp_path) == ["set/a.jpg", "/tmpx/b.jpg"]
    monkeypatch.chdir(tmp_path)
    assert names_of(["set/../set/a.jpg"], ".") == names_of([str(tmp_path / "set/a.jpg")], "") == ["set/a.jpg"]
    assert names_of([f"{tmp_path}-2/a.jpg"], tmp_path) == [f"{tmp_path}-2/a.jpg"]  # not below it


def test_the_digest_of_a_list():
    digests = [
        list_digest(NAMES, "m"),
        list_digest(NAMES, "n"),
        list_digest(NAMES[:2], "m"),
        list_digest(NAMES[::-1], "m"),
    ]
    assert len(set(digests)) == 4
    assert all(len(digest) == 16 for digest in digests)


def test_images_in_order_are_those_of_the_hosts_test_loader(tiny_manager):
    manager = tiny_manager(norm_mean=[0.5, 0.4, 0.3], norm_std=[0.1, 0.2, 0.3])
    (sides,) = manager.test_loader.values()
    images = sides["gallery"].dataset.dataset.data
    loader = loader_in_order(images, 64, 32, [0.5, 0.4, 0.3], [0.1, 0.2, 0.3], batch_size=3)
    host = [item for batch in sides["gallery"] for item in batch["img"]]
    found = [item for batch in loader for item in batch["img"]]
    assert all(torch.equal(a, b) for a, b in zip(host, found, strict=True))
    assert [path for batch in loader for path in batch["impath"]] == [image[0] for image in images]


def test_an_unreadable_image_is_named_or_left_out(tiny_manager, tmp_path):
    images = training_images(tiny_manager())[:2]
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    images.insert(1, (str(tmp_path / "bad.jpg"), 0, 0, 0))
    shape = (64, 32, [0.5] * 3, [0.5] * 3)
    with pytest.raises(BadImageError, match="bad.jpg cannot be read"):
        list(loader_in_order(images, *shape))
    (batch,) = loader_in_order(images, *shape, on_bad_image="skip")
    assert (len(batch["img"]), batch["bad_images"]) == (2, [str(tmp_path / "bad.jpg")])


def test_training_images_are_what_the_loader_gives(tiny_manager, tiny_root):
    import torchreid

    manager = tiny_manager()
    assert isinstance(manager, ImageDataManager)
    images = training_images(manager)
    assert len(images) == 16
    dataset = manager.train_loader.dataset.dataset
    dataset.data = dataset.data[:5]  # as pseudo labels do
    assert training_images(manager) == images[:5]
    host = torchreid.data.ImageDataManager(
        root=str(tiny_root), sources=["drawn_pedestrians_tiny"], height=64, width=32, batch_size_train=4, workers=0,
        use_gpu=False,
    )  # fmt: skip
    assert sorted(image[0] for image in training_images(host)) == sorted(image[0] for image in images)
    assert root_of(manager) == str(tiny_root)
    common = root_of(host)
    assert names_of([images[0][0]], common)[0] in images[0][0]
    assert not os.path.isabs(names_of([images[0][0]], common)[0])
