"""The demo data written out is the demo data."""

from __future__ import annotations

import numpy as np

from artifactnet.config import DataConfig
from artifactnet.data.converters.demo import convert_demo_data
from artifactnet.data.sources import demo, manifest


def test_files_hold_what_the_source_gives(tmp_path):
    config = DataConfig(demo_train=2, demo_val=1, demo_test=1, demo_size=64)
    made = convert_demo_data(config, tmp_path)
    assert made.counts["images"] == 8
    assert made.counts["with a score"] == 8
    ours = demo.build_demo_splits(config, 0)
    theirs = manifest.build_manifest_splits(DataConfig(name="manifest", root=str(tmp_path)), 0)
    assert set(ours) == set(theirs) == {"train", "val", "test"}
    for split, source in ours.items():
        assert len(source.records) == len(theirs[split].records)
        for index, record in enumerate(source.records):
            one, other = source.load(index), theirs[split].load(index)
            assert (other.record.uid, other.record.label) == (record.uid, record.label)
            assert other.record.annotation is record.annotation
            assert other.record.categories == record.categories
            assert (record.categories > 1) == (record.label == 1)
            np.testing.assert_array_equal(one.image, other.image)
            assert one.score == other.score
            if record.label:
                assert 0 < one.score < 1
                np.testing.assert_array_equal(one.mask, other.mask)
                np.testing.assert_allclose(one.heatmap, other.heatmap, atol=0.51 / 255)
            else:
                assert other.score == 1
