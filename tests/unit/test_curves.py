"""The picture of a training."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from special_steps.curves import curves, curves_picture

WARMUP = pd.DataFrame(
    {"epoch": [1, 2, 3], "stage": "warmup", "loss_random": [0.9, 0.7, 0.6], "agreement": [np.nan, 0.5, 0.7]}
)  # fmt: skip
REFINE = pd.DataFrame(
    {
        "epoch": [4, 5],
        "stage": "refine",
        "confident_pixels": [300, 350],
        "hard_pixels": [500, 400],
        "loss_random": [0.5, 0.4],
        "loss_hard": [0.9, 0.8],
        "loss_confident": [0.3, 0.2],
        "agreement": [0.8, 0.9],
    }
)


def lines(axis) -> dict[str, tuple[list, list]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axis.get_lines()
    }


def test_every_column_is_drawn_over_all_epochs():
    rows = pd.concat([WARMUP, REFINE], ignore_index=True)
    loss, pixels, agreement = curves_picture(rows).axes
    assert lines(loss)["random"] == ([1, 2, 3, 4, 5], [0.9, 0.7, 0.6, 0.5, 0.4])
    np.testing.assert_array_equal(lines(loss)["hard"][1], [np.nan] * 3 + [0.9, 0.8])
    np.testing.assert_array_equal(lines(pixels)["confident"][1], [np.nan] * 3 + [300, 350])
    np.testing.assert_array_equal(lines(agreement)["agreement"][1], [np.nan, 0.5, 0.7, 0.8, 0.9])
    assert [t.get_text() for t in loss.get_legend().get_texts()] == ["random", "confident", "hard"]


def test_a_line_marks_where_refinement_begins():
    rows = pd.concat([WARMUP, REFINE], ignore_index=True)
    for axis in curves_picture(rows).axes:
        assert [3.5, 3.5] in [list(line.get_xdata()) for line in axis.get_lines()]


def test_all_panels_show_the_same_epochs():
    figure = curves_picture(pd.concat([WARMUP, REFINE], ignore_index=True))
    assert len({axis.get_xlim() for axis in figure.axes}) == 1


def test_epochs_are_whole_numbers():
    figure = curves_picture(pd.concat([WARMUP, REFINE], ignore_index=True))
    FigureCanvasAgg(figure).draw()
    ticks = figure.axes[0].get_xticks()
    assert (ticks == np.round(ticks)).all()


@pytest.mark.parametrize("other", [[], ["hard_pixels", "loss_confident", "confident_pixels"]])
def test_sets_that_a_run_leaves_out(other, recwarn):
    without = ["loss_hard", *other]
    rows = pd.concat([WARMUP, REFINE.drop(columns=without)], ignore_index=True)
    loss = curves_picture(rows).axes[0]
    assert "hard" not in lines(loss)
    assert "random" in lines(loss)
    assert len(recwarn) == 0


def test_the_step(tmp_path, recwarn):
    WARMUP.to_csv(tmp_path / "warmup.csv", index=False)
    REFINE.to_csv(tmp_path / "refine.csv", index=False)
    curves(
        tables=[tmp_path / "warmup.csv", tmp_path / "refine.csv"],
        picture=tmp_path / "out" / "epochs.png",
    )
    image = Image.open(tmp_path / "out" / "epochs.png")
    assert image.format == "PNG"
    assert image.size[0] > 1000
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["epochs.png"]
    assert [str(w.message) for w in recwarn] == []


def test_the_network_has_one_table_and_no_refinement(tmp_path, recwarn):
    network = pd.DataFrame(
        {"epoch": [1, 2], "stage": "network", "loss_agreed": [0.9, 0.7], "loss_soft": [1.0, 0.9],
         "agreed_pixels": [800, 800], "agreement": [np.nan, 0.5]}
    )  # fmt: skip
    loss, pixels, agreement = curves_picture(network).axes
    assert lines(loss) == {"agreed": ([1, 2], [0.9, 0.7]), "soft": ([1, 2], [1.0, 0.9])}
    assert lines(pixels) == {"agreed": ([1, 2], [800, 800])}
    assert set(lines(agreement)) == {"agreement"}
    network.to_csv(tmp_path / "network.csv", index=False)
    curves(tables=[tmp_path / "network.csv"], picture=tmp_path / "epochs.png")
    assert [str(w.message) for w in recwarn] == []
    assert (tmp_path / "epochs.png").stat().st_size > 0


def test_one_epoch_of_each(tmp_path):
    rows = pd.concat([WARMUP[:1], REFINE[:1]], ignore_index=True)
    curves_picture(rows).savefig(tmp_path / "a.png")
