"""What chapters and tests share, made once on all cores: the models of two classes, their logits, the exported model.

`make test` runs it first. What `sentiment-nb quickstart --classes 2` made after the last change of the package is copied,
not trained again.
"""
import shutil
from pathlib import Path

from sentiment_nb.core import ModelRecord
from sentiment_nb.inference import exported_quickstart
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

if __name__=='__main__':
    quick = Quickstart(quickstart_root())
    if is_fresh() and not quick.model.is_dir(): copy_into(quick)
    quick = load_quickstart()
    for split in ('validation','test'): quick.logits(split)
    exported_quickstart()
