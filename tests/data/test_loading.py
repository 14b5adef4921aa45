"""Preflight, reading and the data manager."""

import os
import random
import shutil

import pytest
import torchreid
from PIL import Image

from torchreid_ptl import host
from torchreid_ptl.data import drawn
from torchreid_ptl.data.manager import ImageDataManager
from torchreid_ptl.data.preflight import check_folders, check_identities
from torchreid_ptl.data.reading import BadImageError, ReadingDataset, read_image
from torchreid_ptl.engines import ImagePTLEngine, SoftmaxObjective

NAME = "drawn_pedestrians_tiny"


@pytest.mark.parametrize("name", ["market1501", "dukemtmcreid", "msmt17", "cuhk03", "viper"])
def test_a_missing_folder_is_named_and_not_created(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        check_folders(str(tmp_path), [name])
    message = str(caught.value)
    assert f"data set {name!r} is missing: {tmp_path}" in message
    assert "--root" in message
    assert "Nothing was created" in message
    assert os.listdir(tmp_path) == []


def test_the_layout_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Market-1501-v15.09.15/ with the folders bounding_box_train, query"):
        check_folders(str(tmp_path), ["market1501"])


@pytest.mark.parametrize("made", ["", "Market-1501-v15.09.15", "Market-1501-v15.09.15/bounding_box_train"])
def test_an_empty_folder(tmp_path, made):
    (tmp_path / "market1501" / made).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"'market1501' has no images \(\*\.jpg\) in .*bounding_box_train"):
        check_folders(str(tmp_path), ["market1501"])


def test_an_empty_folder_of_unknown_layout(tmp_path):
    (tmp_path / "msmt17").mkdir()
    with pytest.raises(FileNotFoundError, match="'msmt17' is empty"):
        check_folders(str(tmp_path), ["msmt17"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "msmt17",
            "could not load 'msmt17' from .*msmt17: AssertionError: Dataset folder not found. Lay the folder out",
        ),
        ("cuhk03", "could not load 'cuhk03' from .*cuhk03: RuntimeError: .*cuhk03_release\" is not found. Lay the"),
        (
            "viper",
            r"'viper' has no images \(\*\.bmp\) in .*viper/cam_a. Expected: .*/VIPeR/ with the folders cam_a, cam_b",
        ),
        ("cuhk02", r"'cuhk02' has no images \(\*\.png\) in .*P1/cam1"),
    ],
)
def test_other_content_than_the_set(tmp_path, name, said):
    folder = tmp_path / host.image_datasets()[name].dataset_dir
    folder.mkdir()
    (folder / "readme.txt").write_text("nothing else")
    with pytest.raises(FileNotFoundError, match=said):
        ImageDataManager(root=str(tmp_path), sources=[name], use_gpu=False)


def test_an_unknown_data_set():
    with pytest.raises(ValueError, match="Unknown data set 'market1502': did you mean 'market1501'"):
        check_folders("", ["market1502"])


def test_identities_without_a_second_camera():
    query, gallery = [("q", 7, 0), ("q", 8, 1)], [("g", 7, 0), ("g", 8, 1), ("g", 9, 0)]
    with pytest.raises(
        ValueError, match=r"2 of 2 queries of 'mine' have no .*identity 7 is seen in the gallery by cameras \[1\] only"
    ):
        check_identities("mine", query, gallery)


def test_some_identities_without_a_second_camera_are_told(capsys):
    check_identities("mine", [("q", 7, 0), ("q", 8, 1)], [("g", 7, 0), ("g", 8, 0)])
    out = capsys.readouterr().out
    assert "1 of 2 queries of 'mine' have no image of their identity by another camera" in out
    assert "identity 7" in out


@pytest.fixture
def damaged(tiny_root, tmp_path, monkeypatch):
    """A copy of the tiny set with a truncated training image and a zero-byte gallery image."""
    shutil.copytree(tiny_root / NAME, tmp_path / NAME)
    train = sorted((tmp_path / NAME / "bounding_box_train").iterdir())[3]
    train.write_bytes(train.read_bytes()[:400])
    gallery = sorted((tmp_path / NAME / "bounding_box_test").iterdir())[5]
    gallery.write_bytes(b"")
    monkeypatch.setattr("torchreid_ptl.data.drawn.make_dataset", lambda *_, **__: None)  # it would notice
    return tmp_path, train, gallery


def manager_of(root, **options):
    options = {"height": 64, "width": 32, "batch_size_train": 4, "workers": 0, "use_gpu": False, **options}
    return ImageDataManager(root=str(root), sources=[NAME], **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_an_error_that_names_it(damaged, workers):
    root, train, gallery = damaged
    manager = manager_of(root, workers=workers)
    with pytest.raises(BadImageError, match=rf"^The image .*{train.name}") as caught:
        list(manager.train_loader)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadImageError, match=f"{gallery.name} cannot be read.*data.on_bad_image skip"):
        list(manager.test_loader[NAME]["gallery"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_left_out_and_counted(damaged, small_model, tmp_path, workers):
    import torch

    root, train, gallery = damaged
    model = small_model()
    manager = manager_of(root, on_bad_image="skip", workers=workers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    engine = ImagePTLEngine(manager, model, optimizer, SoftmaxObjective(), use_gpu=False)
    engine.run(save_dir=str(tmp_path / "log"), max_epoch=1)
    assert set(engine.bad_images) == {str(train), str(gallery)}
    assert len(engine.descriptors[NAME][1].pids) == 9


def test_reading(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(str(tmp_path / "none.jpg"))
    Image.new("L", (4, 8)).save(tmp_path / "grey.png")
    assert read_image(str(tmp_path / "grey.png")).mode == "RGB"
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(BadImageError, match=r"text\.jpg cannot be read"):
        read_image(str(tmp_path / "text.jpg"))


def test_unknown_policy():
    with pytest.raises(ValueError, match="data.on_bad_image is 'hope'; allowed: error, skip"):
        ReadingDataset(None, "hope")


def test_batches_have_the_hosts_form(tiny_manager):
    batch = next(iter(tiny_manager().train_loader))
    assert set(batch) == {"img", "pid", "camid", "impath", "dsetid"}
    assert batch["img"].shape == (4, 3, 64, 32)


def test_order_does_not_depend_on_the_file_system(tiny_root, monkeypatch):
    def lists(manager):
        test = manager.test_dataset[NAME]
        return manager.train_loader.dataset.dataset.data, test["query"], test["gallery"]

    plain = lists(manager_of(tiny_root))

    real = drawn._list_images
    monkeypatch.setattr(drawn, "_list_images", lambda folder: random.sample(real(folder), len(real(folder))))
    assert lists(manager_of(tiny_root)) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size_train": 17}, "batch_size_train is 17 and the training set has 16 images"),
        ({"batch_size_train": 6, "num_instances": 4, "train_sampler": "RandomIdentitySampler"}, "Choose 8, 12"),
        (
            {"batch_size_train": 4, "num_instances": 4, "train_sampler": "RandomIdentitySampler"},
            "two identities at least",
        ),
        (
            {"batch_size_train": 16, "num_instances": 2, "train_sampler": "RandomIdentitySampler"},
            "needs 8 identities; the training set has 4",
        ),
        (
            {"batch_size_train": 4, "num_cams": 3, "train_sampler": "RandomDomainSampler"},
            "must divide by num_cams",
        ),
        ({"k_tfm": 2}, "k_tfm 1"),
    ],
)
def test_batches_that_cannot_be_filled(tiny_root, options, message):
    with pytest.raises(ValueError, match=message):
        manager_of(tiny_root, **options)


def test_a_split_without_images(tiny_root, monkeypatch):
    monkeypatch.setattr("torchreid_ptl.data.drawn._list_images", lambda _: [])
    with pytest.raises(ValueError, match="has no images: its lists are empty"):
        manager_of(tiny_root)


@pytest.fixture
def two_sets(tmp_path, monkeypatch):
    """A source with a camera of one image, and a target of 4 identities by 2 cameras with a truncated image."""

    def listed(part, cameras):
        images = []
        for name, index in [(f"{p}_{c}_{k}", (p, c)) for p in range(4) for c in cameras for k in (1, 2)]:
            path = tmp_path / part / f"{name}.png"
            Image.effect_noise((32, 64), 60).save(path)
            images.append((str(path), *index))
        return images

    def made(name, cameras):
        class Own(torchreid.data.ImageDataset):
            dataset_dir = name

            def __init__(self, root="", **kwargs):
                (tmp_path / name).mkdir(exist_ok=True)
                train = random.sample(listed(name, cameras), 4 * 2 * len(cameras))
                lonely = [(train[0][0], 0, 3)] if name == "own_source" else []
                query, gallery = listed(name, (0,)), listed(name, (1,))
                (tmp_path / name / "0_0_1.png").write_bytes((tmp_path / name / "0_0_1.png").read_bytes()[:900])
                super().__init__(train + lonely, query, gallery, **kwargs)

        (tmp_path / name).mkdir()
        (tmp_path / name / "list.txt").write_text("")
        monkeypatch.setitem(host.image_datasets(), name, Own)

    made("own_source", (0, 1, 2))
    made("own_target", (0, 1))

    def manager(**options):
        options = {"batch_size_train": 4, "height": 64, "width": 32, "workers": 0, "use_gpu": False, **options}
        return ImageDataManager(root=str(tmp_path), sources="own_source", targets="own_target", **options)

    return manager


def test_training_images_of_the_targets_are_read_and_sorted_like_those_of_the_sources(two_sets):
    manager = two_sets(load_train_targets=True)
    paths = [image[0] for image in manager.train_loader_t.dataset.dataset.data]
    assert paths == sorted(paths)
    with pytest.raises(BadImageError, match=r"0_0_1\.png cannot be read"):
        list(manager.train_loader_t)
    with pytest.raises(BadImageError, match=r"0_0_1\.png"):
        manager.check_images()
    batches = list(two_sets(load_train_targets=True, on_bad_image="skip").train_loader_t)
    assert sum(len(batch["pid"]) for batch in batches) == 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train_sampler_t": "RandomIdentitySampler", "num_instances": 2, "batch_size_train": 12},
            "train_sampler_t is RandomIdentitySampler: .*needs 6 identities; the training set of the targets has 4",
        ),
        (
            {"train_sampler_t": "RandomDomainSampler", "num_cams": 4, "batch_size_train": 4},
            r"train_sampler_t is RandomDomainSampler: num_cams is 4, and the .*targets has 2 camera\(s\)",
        ),
        (
            {"train_sampler_t": "RandomDomainSampler", "num_cams": 3, "batch_size_train": 4},
            "train_sampler_t is .*batch_size_train is 4 and must divide by num_cams, 3",
        ),
        (
            {"train_sampler_t": "RandomDatasetSampler", "num_datasets": 2},
            r"train_sampler_t .*num_datasets is 2, and the training set of the targets has 1 data set\(s\)",
        ),
        (
            {"train_sampler": "RandomDomainSampler", "num_cams": 2},
            r"train_sampler is .*takes 2 images of each of its 2 cameras, and camera 4 \(.*\.png\) has 1\.",
        ),
    ],
)
def test_samplers_that_do_not_fit_say_why(two_sets, options, message):
    with pytest.raises(ValueError, match=message):
        two_sets(load_train_targets=True, **options)


def test_targets_that_are_sources_are_not_loaded_as_targets(tiny_root):
    with pytest.raises(ValueError, match=r"load_train_targets needs targets that are no sources; both have \['drawn"):
        manager_of(tiny_root, load_train_targets=True)
