"""Which images are read, which are refused, and when."""

import os
import signal
import socket
import time

import numpy as np
import pytest
from PIL import Image

from torchreid_ptl.cli.arguments import report_user_errors
from torchreid_ptl.data.drawn import make_dataset
from torchreid_ptl.data.preflight import check_images
from torchreid_ptl.data.reading import BadImageError, ReadingDataset, probe_image, read_image, reading_loader

GREY = np.linspace(0, 255, 32 * 16).reshape(32, 16)
DEEP = {
    "sixteen.png": (GREY * 257).astype(np.uint16),
    "twelve.png": (GREY * 16).astype(np.uint16),
    "sixteen.tif": (GREY * 257).astype(np.uint16),
    "int32.tif": (GREY * 257).astype(np.int32),
    "float.tif": (GREY / 255).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_eight_bits_are_refused_with_the_mode(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(DEEP[name]).save(path)
    with pytest.raises(BadImageError, match=rf"{name} cannot be read \(Pillow's mode [IF].*Convert the images"):
        read_image(path)
    assert "more than 8 bits" in str(probe_image(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_eight_bits_or_less_keep_their_values(tmp_path, mode):
    pattern = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8)).convert("RGB")
    path = tmp_path / ("image.tif" if mode in ("CMYK", "YCbCr") else "image.png")
    pattern.convert(mode).save(path)
    assert probe_image(path) is None
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(pattern))


def damaged(path):
    """Files that are no complete images, each below its name."""
    Image.fromarray(GREY.astype(np.uint8)).resize((64, 128)).save(path / "whole.jpg")
    Image.fromarray(GREY.astype(np.uint8)).resize((64, 128)).save(path / "whole.png")
    for kind in ("jpg", "png"):
        whole = (path / f"whole.{kind}").read_bytes()
        (path / f"half.{kind}").write_bytes(whole[: len(whole) // 2])
    (path / "empty.jpg").write_bytes(b"")
    (path / "page.jpg").write_text("<html>moved</html>")
    (path / "folder.jpg").mkdir()
    (path / "link.jpg").symlink_to(path / "gone.jpg")
    os.mkfifo(path / "pipe.jpg")


@pytest.mark.parametrize(
    "name", ["half.jpg", "half.png", "empty.jpg", "page.jpg", "folder.jpg", "link.jpg", "pipe.jpg", "socket.jpg"]
)
def test_what_is_no_image_is_named_and_nothing_waits(tmp_path, monkeypatch, name):
    damaged(tmp_path)
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        started = time.monotonic()
        message = str(probe_image(name))
        assert f"The image {name} cannot be read" in message
        assert "data.on_bad_image skip" in message
        images = type("Images", (), {"data": [(name, 1, 0, 0)], "transform": None})
        with pytest.raises(BadImageError, match=f"The image {name} cannot be read"):
            ReadingDataset(images)[0]
        assert ReadingDataset(images, "skip")[0] == {"bad_image": name}
        assert time.monotonic() - started < 2


def test_junk_behind_the_end_of_an_image_is_no_damage(tmp_path):
    damaged(tmp_path)
    path = tmp_path / "whole.jpg"
    path.write_bytes(path.read_bytes() + bytes(1000))
    assert probe_image(path) is None


def test_all_images_are_looked_at_before_the_work(tmp_path):
    damaged(tmp_path)
    whole, half, page = (str(tmp_path / name) for name in ("whole.jpg", "half.jpg", "page.jpg"))
    check_images({"training images": [whole, whole], "query of 'mine'": []})
    with pytest.raises(BadImageError, match=r"half\.jpg cannot .* skip\. 1 more cannot: .*page\.jpg$"):
        check_images({"training images": [whole, half], "query of 'mine'": [page, half]})
    check_images({"training images": [whole, half]}, "skip")
    with pytest.raises(BadImageError, match=r"No image of the query of 'mine' can be read\. The image .*page\.jpg"):
        check_images({"training images": [whole, half], "query of 'mine'": [page, half]}, "skip")


def test_a_pipe_in_a_drawn_set_is_a_change(tmp_path):
    recipe = {"train_ids": 1, "test_ids": 1, "distractor_ids": 0, "cameras": 2, "images_per_camera": 2}
    make_dataset(tmp_path / "drawn", **recipe)
    os.mkfifo(tmp_path / "drawn" / "query" / "pipe.jpg")
    with pytest.raises(FileExistsError, match=r"pipe\.jpg is no file"):
        make_dataset(tmp_path / "drawn", **recipe)


def kill_itself(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_message(tmp_path, capsys):
    damaged(tmp_path)
    images = type("Images", (), {"data": [(str(tmp_path / "whole.jpg"), 1, 0, 0)], "transform": kill_itself})
    assert report_user_errors(lambda: list(reading_loader(images, "error", 1, 1))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "DataLoader worker" in line
    assert "data.workers" in line


@pytest.mark.parametrize(
    "text",
    [
        "unable to write to file </torch_12_34_0>: No space left on device (28)",
        "Caught RuntimeError in DataLoader worker process 0.\nTraceback\nRuntimeError: unable to mmap 1024 bytes",
        "received 0 items of ancdata",
    ],
)
def test_too_little_shared_memory_is_one_message(capsys, text):
    def work():
        raise RuntimeError(text)

    assert report_user_errors(work) == 1
    assert "data.workers" in capsys.readouterr().err


def test_other_errors_of_the_program_are_not_explained_away():
    def work():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        report_user_errors(work)
