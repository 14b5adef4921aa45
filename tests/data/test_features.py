import zipfile

import numpy as np
import pytest
import torch

from torchreid_ptl.data.features import FeatureFile, FeatureFileError, FeatureFiles, save_features
from torchreid_ptl.evaluation import Descriptors, evaluate_ranking

LABELS = {"pids": np.arange(6), "camids": np.zeros(6, int)}


def features(dtype=np.float32):
    return np.random.default_rng(0).standard_normal((6, 4)).astype(dtype)


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_what_is_written_is_read(tmp_path, suffix, dtype):
    path = tmp_path / f"query{suffix}"
    save_features(path, features(dtype), LABELS["pids"], list(LABELS["camids"]), [f"{i}.jpg" for i in range(6)])
    file = FeatureFile(path)
    assert file.shape == (6, 4)
    assert file.pids.tolist() == list(range(6))
    assert file.camids.tolist() == [0] * 6
    assert file.paths[5] == "5.jpg"
    np.testing.assert_array_equal(np.asarray(file.read()), features(dtype))


def test_a_dictionary_of_tensors_and_lists_by_somebody_else(tmp_path):
    torch.save({"features": torch.ones(3, 2), "pids": [1, 2, 3], "camids": torch.zeros(3).int()}, tmp_path / "x.pt")
    file = FeatureFile(tmp_path / "x.pt")
    assert file.pids.tolist() == [1, 2, 3]
    assert file.paths == []


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_a_gallery_in_pieces_ranks_like_a_whole_one(tmp_path, suffix):
    rng = np.random.default_rng(1)
    query, gallery = rng.standard_normal((9, 8)), rng.standard_normal((70, 8))
    pids, camids = rng.integers(0, 5, 70), rng.integers(0, 3, 70)
    bounds = [0, 1, 30, 70]
    for index, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        save_features(tmp_path / f"{index}{suffix}", gallery[start:stop], pids[start:stop], camids[start:stop])
    pieces = FeatureFiles([tmp_path / f"{index}{suffix}" for index in range(3)])
    assert pieces.shape == (70, 8)
    torch.testing.assert_close(pieces[0:70], torch.tensor(gallery).float())
    torch.testing.assert_close(pieces[29:31], torch.tensor(gallery[29:31]).float())
    queries = Descriptors(query, rng.integers(0, 5, 9), np.full(9, 9))
    whole = evaluate_ranking(queries, Descriptors(gallery, pids, camids))
    parts = evaluate_ranking(queries, Descriptors(pieces, pieces.pids, pieces.camids))
    assert parts.mAP == whole.mAP
    np.testing.assert_array_equal(parts.first_hit, whole.first_hit)


def written(path, **content):
    (np.savez if path.suffix == ".npz" else lambda p, **c: torch.save(c, p))(path, **content)
    return path


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", {"feature": features(), **LABELS}, "no 'features': did you mean 'feature'"),
        ("a.npz", {"features": features(), "pids": LABELS["pids"]}, "no 'camids'"),
        ("a.pt", {"features": torch.ones(6, 4), "pids": torch.arange(6)}, "no 'camids'"),
        ("a.npz", {"features": features()[0], **LABELS}, r"features must be \(images, dimensions\), got \(4,\)"),
        ("a.npz", {"features": features()[:5], **LABELS}, "pids must be 5 whole numbers"),
        ("a.npz", {"features": features(), **LABELS, "pids": np.ones(6)}, "pids must be 6 whole numbers.*float64"),
        ("a.npz", {"features": np.array([["a"] * 4] * 6), **LABELS}, "features must be real numbers"),
        ("a.npz", {"features": features(), **LABELS, "paths": ["x"]}, "1 paths for 6 features"),
        ("a.pt", {"features": [1, 2], **{k: v.tolist() for k, v in LABELS.items()}}, "an array or a tensor, got list"),
        ("a.pt", {"features": Evil()}, "no file of torch, or holds more"),
    ],
)
def test_a_file_that_does_not_hold_what_it_should(tmp_path, capsys, name, content, message):
    with pytest.raises(FeatureFileError, match=message):
        FeatureFile(written(tmp_path / name, **content))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["torn.npz", "torn.pt", "array.npz", "list.pt"])
def test_a_file_that_cannot_be_read(tmp_path, name):
    path = tmp_path / name
    if name == "array.npz":
        with open(path, "wb") as file:
            np.save(file, features())
    elif name == "list.pt":
        torch.save([1], path)
    else:
        save_features(path, features(), LABELS["pids"], LABELS["camids"])
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FeatureFileError, match=name):
        FeatureFile(path)


def test_other_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of features .*none\.npz"):
        FeatureFile(tmp_path / "none.npz")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(FeatureFileError, match=r"one of the kinds \.npz, \.pt"):
        FeatureFile(tmp_path / "x.csv")
    with pytest.raises(FeatureFileError, match="must end in"):
        save_features(tmp_path / "x.csv", features(), LABELS["pids"], LABELS["camids"])
    with pytest.raises(FeatureFileError, match="of one length, got"):
        save_features(tmp_path / "x.npz", features(), [1], LABELS["camids"])
    with pytest.raises(FeatureFileError, match="No file"):
        FeatureFiles([])
    save_features(tmp_path / "4.npz", features(), LABELS["pids"], LABELS["camids"])
    save_features(tmp_path / "2.npz", features()[:, :2], LABELS["pids"], LABELS["camids"], ["a"] * 6)
    with pytest.raises(FeatureFileError, match=r"one dimension: .*4.npz has 4, .*2.npz has 2"):
        FeatureFiles([tmp_path / "4.npz", tmp_path / "2.npz"])
    save_features(tmp_path / "unnamed.npz", features()[:, :2], LABELS["pids"], LABELS["camids"])
    with pytest.raises(FeatureFileError, match="Some files name their images"):
        FeatureFiles([tmp_path / "unnamed.npz", tmp_path / "2.npz"])


OF_THREE = {"pids": np.array([1, 2, 1]), "camids": np.zeros(3, int)}
ROWS = np.arange(12, dtype="f4").reshape(3, 4)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", ">i2", "u1", "longdouble", ">u4"])
@pytest.mark.parametrize("name", ["x.npz", "x.NPZ"])
def test_arrays_of_other_programs(tmp_path, dtype, name):
    big = {key: value.astype(">i4") for key, value in OF_THREE.items()}
    extra = {"meta": np.array({"any": "thing"}, dtype=object), "count": np.array(3)}
    with (tmp_path / name).open("wb") as file:
        np.savez(file, features=ROWS.astype(dtype), paths=np.array([b"a", b"b", b"c"]), **big, **extra)
    found = FeatureFiles([tmp_path / name])
    assert found[0:3].tolist() == ROWS.tolist()
    assert (found.pids.tolist(), found.paths) == ([1, 2, 1], ["a", "b", "c"])


@pytest.mark.parametrize("name", ["x.pt", "x.PT"])
def test_the_old_format_of_torch(tmp_path, name):
    content = {"features": torch.tensor(ROWS, requires_grad=True), **{k: torch.tensor(v) for k, v in OF_THREE.items()}}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
    found = FeatureFiles([tmp_path / name])[0:3]
    assert (found.tolist(), found.requires_grad) == (ROWS.tolist(), False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features": ROWS.astype(object)}, "real numbers, got object"),
        ({"features": ROWS.astype(complex)}, "real numbers, got complex128"),
        ({"pids": OF_THREE["pids"].astype(object)}, r"pids: Object arrays .*Write it as an array of numbers"),
        ({"paths": np.array(["a", "b", "c"], dtype=object)}, r"paths: Object arrays .*of str for paths"),
        ({"paths": np.array("a")}, r"paths must be one name for each row of features, got shape \(\)"),
        ({"paths": np.arange(3)}, r"paths must be one name .* of int64"),
        ({"pids": np.array(1)}, r"pids must be 3 whole numbers.* got shape \(\)"),
        ({"pids": OF_THREE["pids"].astype("f8")}, "pids must be 3 whole numbers.*float64"),
        ({"camids": np.array([0, 0, 2**64 - 1], dtype="u8")}, r"camids must be below 2\^63"),
        ({"features": np.array(1.0)}, r"\(images, dimensions\), got \(\)"),
        ({"features": ROWS[:0], "pids": OF_THREE["pids"][:0]}, r"\(images, dimensions\), got \(0, 4\)"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, content, message):
    np.savez(tmp_path / "x.npz", **{"features": ROWS, **OF_THREE, **content})
    with pytest.raises(FeatureFileError, match=rf"x\.npz.*{message}"):
        FeatureFile(tmp_path / "x.npz")


TENSORS = {"features": torch.tensor(ROWS), **{key: torch.tensor(value) for key, value in OF_THREE.items()}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pids": OF_THREE["pids"]}, r"an object of numpy.*_reconstruct.*Write features, pids and camids as tensors"),
        ({"pids": [1, [2], 3]}, "pids is no array"),
        ({"pids": torch.ones(3, dtype=torch.bfloat16)}, "pids is no array"),
        ({"paths": 5}, "paths must be one name"),
        ({"paths": [1, 2, 3]}, "paths must be one name"),
        ({"features": torch.quantize_per_tensor(torch.tensor(ROWS), 1.0, 0, torch.qint8)}, "real numbers"),
    ],
)
def test_tensors_that_cannot_be_used(tmp_path, content, message):
    torch.save({**TENSORS, **content, 5: "odd key"}, tmp_path / "x.pt")
    with pytest.raises(FeatureFileError, match=rf"x\.pt.*{message}") as caught:
        FeatureFile(tmp_path / "x.pt")
    assert "two options" not in str(caught.value)


def test_odd_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for key in ("features", "pids", "camids"):
            archive.writestr(key, b"no array")
    with pytest.raises(FeatureFileError, match=r"x\.npz cannot be read"):
        FeatureFile(tmp_path / "x.npz")


def test_a_part_of_a_tensor_is_written_without_the_rest(tmp_path):
    everything = torch.rand(10_000, 8)
    save_features(tmp_path / "x.pt", everything[:3], OF_THREE["pids"], OF_THREE["camids"])
    assert (tmp_path / "x.pt").stat().st_size < 5_000
    assert torch.equal(FeatureFiles([tmp_path / "x.pt"])[0:3], everything[:3])


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (torch.eye(6).to_sparse(), r"dense tensor \(to_dense\(\)\), got one torch.sparse_coo"),
        (torch.eye(6).to_sparse_csr(), r"dense tensor \(to_dense\(\)\), got one torch.sparse_csr"),
        (torch.empty(6, 4, device="meta"), "without values"),
    ],
    ids=["coo", "csr", "meta"],
)
def test_tensors_that_are_not_dense_are_named(tmp_path, odd, said):
    path = tmp_path / "query.pt"
    torch.save({"features": odd, "pids": torch.arange(6), "camids": torch.zeros(6, dtype=torch.long)}, path)
    with pytest.raises(FeatureFileError, match=rf"query\.pt.*({said}|cannot be read)"):
        FeatureFile(path)


def test_a_piece_that_is_given_twice_is_refused(tmp_path):
    path = tmp_path / "gallery.npz"
    save_features(path, features(), **LABELS)
    with pytest.raises(FeatureFileError, match=r"gallery\.npz is given twice, and its images would count twice"):
        FeatureFiles([path, tmp_path / "." / "gallery.npz"])


def test_a_text_that_is_called_like_an_archive_is_named(tmp_path):
    (tmp_path / "query.npz").write_text("0.1 0.2\n")
    with pytest.raises(FeatureFileError, match=r"query\.npz.*begins with b'0\.1 0\.' and is no archive"):
        FeatureFile(tmp_path / "query.npz")
