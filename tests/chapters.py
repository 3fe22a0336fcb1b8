"""Every notebook's cells, as `nbdev_test` runs them, but the long notebooks first, so that no core is left with one at the end

    python tests/chapters.py 2
"""
import sys
from pathlib import Path

from fastcore.parallel import parallel
from nbdev.config import get_config
from nbdev.test import test_nb

LONG = 'inference training howto languages evaluation ensemble cli behaviour audit speed'.split() # By seconds of processor time

def rank(path):
    "Place in the queue: the long ones by their length, then the others by their name"
    room = path.stem.split('_', 1)[-1]
    return (LONG.index(room) if room in LONG else len(LONG), path.name)

def main(n_workers):
    config = get_config()
    paths = sorted(Path(config.nbs_path).absolute().glob('[!_.]*.ipynb'), key=rank)
    settings = dict(skip_flags=config.tst_flags.split(), basepath=config.config_path, do_print=True)
    outcomes = parallel(test_nb, paths, n_workers=n_workers, pause=.01, **settings)
    for path,(_,seconds) in zip(paths, outcomes): print(f'{seconds:4.0f} s  {path.name}')
    failed = [path.name for path,(passed,_) in zip(paths, outcomes) if not passed]
    if failed: sys.exit(f'failed: {", ".join(failed)}')

if __name__=='__main__': main(int(sys.argv[1]))
