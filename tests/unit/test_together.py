"""Several scenes as one to learn from."""

import numpy as np
import pytest
from stores import make_cube, make_prediction

from special_steps.core.errors import UserError
from special_steps.core.store import class_names, new_store, open_store, write_array, write_names
from special_steps.features import features
from special_steps.together import GAP, stacked, stacked_shape, together

NM = np.arange(450.0, 850, 20)


def make_member(folder, name, shape, nm=NM, seed=0, classes=("a", "b"), **how):
    """A scene with a corner without data; how it takes part."""
    rng = np.random.default_rng(seed)
    nodata = np.zeros(shape, bool)
    nodata[:2, :3] = True
    cube = 0.2 + 0.1 * np.sin(nm / 100)[:, None, None] + rng.uniform(0, 0.2, shape)
    cube = make_cube(folder / f"{name}.zarr", np.where(nodata, 0, cube), nm, None, nodata)
    given = rng.dirichlet(np.ones(len(classes)), shape).transpose(2, 0, 1).astype("f4")
    pseudo = make_prediction(folder / f"{name}-pseudo.zarr", given, list(classes), nodata)
    return {"scene": name, "cube": str(cube), "pseudo": str(pseudo), "units": "auto"} | how


def joined(folder, *members):
    together(
        scenes=list(members),
        percentiles=[0, 100],
        features=folder / "features.zarr",
        pseudo=folder / "pseudo.zarr",
    )
    return open_store(folder / "features.zarr"), open_store(folder / "pseudo.zarr")


def test_scenes_lie_below_one_another(tmp_path):
    members = [make_member(tmp_path, "a", (20, 30)), make_member(tmp_path, "b", (12, 24), seed=1)]
    prepared, labelled = joined(tmp_path, *members)
    first, second = slice(0, 20), slice(20 + GAP, 32 + GAP)
    stacks = prepared["features"][:], prepared["nodata"][:]
    assert stacks[1].shape == (32 + GAP, 30)
    values = [open_store(m["cube"])["reflectance"][:] for m in members]
    nodata = np.zeros(stacks[1].shape, bool)
    nodata[:2, :3] = nodata[20 : 22 + GAP, :3] = nodata[20 : 20 + GAP] = nodata[20:, 24:] = True
    np.testing.assert_array_equal(stacks[1], nodata)
    low, high = prepared.attrs["limits"]
    valid = [
        v[:, ~open_store(m["cube"])["nodata"][:]] for v, m in zip(values, members, strict=True)
    ]
    assert low == min(v.min() for v in valid) and high == max(v.max() for v in valid)
    for value, part in zip(values, (np.s_[first, :30], np.s_[second, :24]), strict=True):
        wanted = np.where(nodata[part], 0, (value - low) / (high - low))
        np.testing.assert_allclose(stacks[0][:, *part], wanted, atol=1e-5)
        own = labelled["probabilities"][:, *part]
        assert own[:, ~nodata[part]].sum(0) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(labelled["nodata"][:], nodata)
    np.testing.assert_array_equal(labelled["labels"][:] == 0, nodata)
    assert class_names(labelled) == ["a", "b"]
    # beside and between scenes stands what is near, so that means of all stay as they are
    np.testing.assert_array_equal(stacks[0][:, second, 24:], stacks[0][:, second, 18:24][..., ::-1])
    np.testing.assert_array_equal(stacks[0][:, 20 : 20 + GAP], stacks[0][:, 20 - GAP : 20][:, ::-1])


def test_tall_scenes_are_stacked_in_strips():
    images = [np.random.default_rng(i).random((2, h, 3)) for i, h in enumerate((600, 256))]
    shapes = [(600, 3), (256, 3)]
    strips = list(stacked([lambda rows, i=i: i[:, rows] for i in images], shapes, None))
    assert [s.shape[1] for s in strips] == [256, 256, 88 + GAP, 256]
    whole = np.concatenate(strips, 1)
    assert whole.shape[1:] == stacked_shape(shapes)
    np.testing.assert_array_equal(whole[:, :600], images[0])
    np.testing.assert_array_equal(whole[:, 600 + GAP :], images[1])


def test_alone_it_is_what_features_makes(tmp_path):
    member = make_member(tmp_path, "a", (20, 30))
    prepared, _ = joined(tmp_path, member)
    features(
        source=member["cube"], out=tmp_path / "own.zarr", input="hsi", percentiles=[0, 100], components=2
    )  # fmt: skip
    own = open_store(tmp_path / "own.zarr")
    np.testing.assert_array_equal(prepared["features"][:], own["features"][:])
    assert prepared.attrs["limits"] == own.attrs["limits"]


def test_bands_are_the_first_scenes(tmp_path):
    first, lacking = (
        make_member(tmp_path, n, (20, 30), nm) for n, nm in (("a", NM), ("b", NM[2:]))
    )
    with pytest.raises(UserError, match=r"b.zarr: no good bands around 450 nm.*learns from"):
        joined(tmp_path, first, lacking)
    prepared, _ = joined(tmp_path, make_member(tmp_path, "c", (20, 30), NM[:-1] + 10), first)
    np.testing.assert_array_equal(prepared["band"][:], NM[:-1] + 10)


def test_what_does_not_fit_is_refused(tmp_path):
    first = make_member(tmp_path, "a", (20, 30))
    with pytest.raises(UserError, match=r"b-pseudo.zarr: classes b, a, but .* has a, b"):
        joined(tmp_path, first, make_member(tmp_path, "b", (20, 30), classes="ba"))
    with pytest.raises(UserError, match=r"b: its values are radiance"):
        joined(tmp_path, first, make_member(tmp_path, "b", (20, 30), units="radiance"))
    assert not (tmp_path / "features.zarr").exists()


def test_the_library_has_a_say_where_it_has_in_all(tmp_path):
    """Labels that it has no say in take another way in co-training."""
    members = [make_member(tmp_path, name, (9, 9)) for name in "ab"]
    for told in ([True, True], [True, False]):
        for member, informed in zip(members, told, strict=True):
            path = tmp_path / f"{member['scene']}-{informed}.zarr"
            with new_store(path, step="fuse", settings={"informed": informed}, inputs=[]) as group:
                write_names(group, ["a", "b"])
                given = np.full((2, 9, 9), 0.5, "f4")
                write_array(group, "probabilities", given, ("class", "y", "x"))
            member["pseudo"] = str(path)
        _, labelled = joined(tmp_path, *members)
        assert labelled.attrs["provenance"]["settings"]["informed"] is all(told)
