"""What chapters and tests share, made once: the models of two classes, their logits, the exported model.

It stands first, so that one worker trains while the other runs the files that do without. What `sentiment-nb quickstart
--classes 2` made in this checkout after the last change of the package is copied, not trained again.
"""
import shutil
from pathlib import Path

import pytest
from sentiment_nb.core import ModelRecord
from sentiment_nb.inference import Predictor, exported_quickstart
from sentiment_nb.training import Quickstart, load_quickstart, quickstart_root

root = Path(__file__).resolve().parents[1]
made = root/'models'/'quickstart'

def is_fresh():
    "Whether the quickstart of two classes ran after the last change of the package"
    record = made/'sentiment_nb.json'
    if not record.is_file() or len(ModelRecord.load(made).labels)!=2: return False
    changed = max(p.stat().st_mtime for p in (root/'sentiment_nb').glob('*.py'))
    return record.stat().st_mtime>changed

def copy_into(quick):
    "Copy what the quickstart made into the cache, the model last, since a cache with a model is taken for whole"
    shutil.copytree(root/'data'/'quickstart', quick.data, dirs_exist_ok=True)
    shutil.copytree(made.with_name('quickstart-linear'), quick.linear, dirs_exist_ok=True)
    shutil.copytree(made.with_name('quickstart-frozen'), quick.probe, dirs_exist_ok=True)
    shutil.copytree(made, quick.exported, dirs_exist_ok=True)
    partial = quick.model.with_name('.quickstart.partial')
    shutil.copytree(made, partial, dirs_exist_ok=True)
    partial.rename(quick.model)

@pytest.mark.timeout(2400)
def test_the_models_are_made():
    "Trained, exported and passed for int8; the logits that several chapters read are stored"
    quick = Quickstart(quickstart_root())
    if is_fresh() and not quick.model.is_dir(): copy_into(quick)
    quick = load_quickstart()
    assert len(quick.logits('validation'))<len(quick.logits('test'))
    assert Predictor(exported_quickstart()).engine=='int8'
