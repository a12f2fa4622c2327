"""What the second stage does to noisy labels of known accuracy, on real scenes; the whole table is README's."""

import pandas as pd
import pytest
import yaml
from runs import ROOT

CONFIG = ROOT / "tests" / "workflow" / "noisy_labels.yaml"


@pytest.mark.parametrize("scene", ["samson", "muufl"])
def test_final_maps_are_better_than_their_noisy_labels_in_the_mean(run, shared, tmp_path, scene):
    config = yaml.safe_load(CONFIG.read_text())
    config |= {
        "data": str(shared),
        "scenes": {scene: config["scenes"][scene]},
        "runs": {m: config["runs"]["map-0"] | {"method": m} for m in ("agreement", "published")},
        "seeds": [0, 1, 2],
    }
    side_by_side = ("--resources", "gpu=2", "--set-threads", "network=1", "warmup=1", "refine=1")
    assert run(tmp_path, config, *side_by_side).returncode == 0
    table = pd.read_csv(tmp_path / "results/summary.csv").set_index(["run", "stage"])["oa_mean"]
    for method, stage in {"agreement": "consensus", "published": "final"}.items():
        assert table[method, "pseudo"] == pytest.approx(0.65, abs=0.005)
        assert table[method, stage] > table[method, "pseudo"] + 0.05
