"The chapters in a real JupyterLab, in a real browser: *Run All*, save, and nothing in the repository has changed but numbers, which another processor rounds otherwise."
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from sentiment_nb.cli import main
from sentiment_nb.training import load_quickstart

root = Path(__file__).resolve().parents[1]
SERVING = 26 # chapters from here on start servers and processes of their own
chapters = sorted(p.stem for p in (root/'nbs').glob('[0-9]*_*.ipynb') if int(p.stem[:2])<SERVING)
pytestmark = pytest.mark.slow
NOTEBOOK = 'jupyterapp.shell.currentWidget'

def wants_data(name):
    source = (root/'nbs'/f'{name}.ipynb').read_text(encoding='utf-8')
    return '"#| slow' in source and 'SENTIMENT_NB_DATA' in source

def git(folder, *words):
    command = ['git', '-c', 'user.name=t', '-c', 'user.email=t@t', *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "A copy of the working tree as a repository of its own, with nbdev's hooks, and JupyterLab in it as `make lab` starts it"
    home = tmp_path_factory.mktemp('lab')
    copy = home/'sentiment_nb'
    for name in git(root, 'ls-files', '-z', '-co', '--exclude-standard').split('\0'):
        if not (root/name).is_file(): continue
        (copy/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/name, copy/name, follow_symlinks=False)
    for words in (['init', '-q'], ['add', '-A'], ['commit', '-qm', 'as it is']): git(copy, *words)
    env = os.environ | {'HOME': str(home), 'USERPROFILE': str(home), 'PYTHONPATH': str(copy), 'OMP_NUM_THREADS': '1'}
    hooks = [sys.executable, '-c', 'from nbdev.clean import nbdev_install_hooks as i; i()']
    subprocess.run(hooks, cwd=copy, env=env, check=True, capture_output=True)
    log = home/'log'
    opened = home/'opened'
    script = home/'browser'
    script.write_text(f'#!/bin/sh\ncp "${{1#file://}}" {opened}\n') # Jupyter gives the browser a file that leads to the page
    script.chmod(0o755)
    options = [f'--browser={script} %s', '--allow-root', '--port=0', '--LabApp.expose_app_in_browser=True', '--ServerApp.token=t']
    command = [sys.executable, '-m', 'jupyter', 'lab', '--config', 'jupyter_server_config.py', 'nbs/00_core.ipynb', *options]
    server = subprocess.Popen(command, cwd=copy, env=env, stderr=open(log, 'w'), stdout=subprocess.DEVNULL)
    until(lambda: opened.is_file() and 'http' in opened.read_text(), 120, log.read_text)
    yield SimpleNamespace(copy=copy, url=re.search(r'http://[^/]+', opened.read_text())[0], opened=opened.read_text())
    server.terminate()
    server.wait(60)

def until(holds, seconds, say=lambda: ''):
    "Wait until something holds"
    end = time.monotonic() + seconds
    while not (got := holds()):
        assert time.monotonic()<end, say()
        time.sleep(.5)
    return got

def words(text):
    "A notebook without the numbers in its outputs, the blanks that align them, and the pictures drawn from them"
    nb = json.loads(text)
    for c in nb['cells']:
        for o in c.get('outputs', []): o.get('data', {}).pop('image/png', None)
        if 'outputs' in c: c['outputs'] = without_numbers(json.dumps(c['outputs'], ensure_ascii=False))
    return nb

def without_numbers(text):
    "A text with # for each number and one space for blanks and rules"
    return re.sub(r'(\\n|\s|--+)+', ' ', re.sub(r'[-+]?\d[\d,.]*(e[-+]?\d+)?', '#', text))

def click(page, *labels):
    "Through the menus, as a person does"
    page.locator('.lm-MenuBar-itemLabel', has_text=re.compile(f'^{labels[0]}$')).click()
    page.locator('.lm-Menu-itemLabel', has_text=re.compile(f'^{labels[1]}$')).click()

def ran(page):
    "How many code cells have not run, and the errors among the outputs"
    return page.evaluate(f"""() => {{
        const cells = [...{NOTEBOOK}.content.model.cells].filter(c => c.type=='code' && c.sharedModel.getSource().trim())
        const outputs = cells.flatMap(c => c.outputs.toJSON())
        return [cells.filter(c => !c.executionCount || c.executionState=='running').length, outputs.filter(o => o.output_type=='error').map(o => o.ename + ': ' + o.evalue)]}}""")

def judged_at_once(page):
    "A sentence typed into the box of the inference chapter has its answer and its colours below"
    at = page.evaluate(f"[...{NOTEBOOK}.content.model.cells].findIndex(c => c.sharedModel.getSource().includes('ipywidgets.Text'))")
    page.evaluate(f"{NOTEBOOK}.content.scrollToItem({at}, 'center')")
    for sentence,label in (('What a horrible, horrible day', 'negative'), ('What a wonderful day, thank you', 'positive')):
        page.locator('.widget-text input').fill(sentence)
        page.locator('.widget-html-content', has_text=re.compile(f'^{label}, \\d+% sure')).wait_for(timeout=60_000)
        assert page.locator('.widget-html-content p span').count()==len(sentence.split())

def test_make_lab_opens_the_first_chapter(lab): assert '/lab/tree/00_core.ipynb' in lab.opened

def run_all(lab, browser, path):
    "A notebook in which every cell has run, none with an error; its page"
    page = browser.new_page(viewport={'width': 1400, 'height': 900})
    page.goto(f'{lab.url}/lab/tree/{path}?token=t&reset')
    page.wait_for_function(f"window.jupyterapp && {NOTEBOOK}?.content?.model?.cells?.length > 3", timeout=120_000)
    page.wait_for_function(f"{NOTEBOOK}.sessionContext.session?.kernel?.status == 'idle'", timeout=120_000)
    click(page, 'Run', 'Run All Cells')
    until(lambda: ran(page)[0]==0 or ran(page)[1], 1800, lambda: f'{path}: {ran(page)} cells to go')
    page.wait_for_function(f"{NOTEBOOK}.sessionContext.session?.kernel?.status == 'idle'", timeout=120_000)
    left,errors = ran(page)
    assert not left and not errors, errors
    return page

def test_the_notebook_of_a_report(lab, browser):
    "It runs unchanged, and the page that it makes is the one that came with it"
    folder = lab.copy/'nbs'/'asked'
    folder.mkdir()
    texts = ['they lost my bag, awful', 'great crew, thank you', 'terrible phone line, on hold for hours']*40
    frame = pd.DataFrame({'text': [f'{t} {i}' for i,t in enumerate(texts)], 'created': '2024-01-05', 'product': 'tea'})
    frame['prob_negative'] = [.1 if 'great' in t else .9 for t in texts]
    frame.assign(prob_positive=1-frame.prob_negative).to_csv(folder/'scored.csv', index=False)
    options = f"--by product --date created --k 2 --encoder words --model {load_quickstart().linear} --out {folder/'report'}"
    try:
        assert main(['report', str(folder/'scored.csv'), *options.split()])==0
        before = (folder/'report'/'report.html').read_bytes()
        run_all(lab, browser, 'asked/report/report.ipynb').close()
        assert (folder/'report'/'report.html').read_bytes()==before
    finally: shutil.rmtree(folder)

@pytest.mark.parametrize('name', chapters)
def test_run_all_and_save(lab, browser, name):
    "Every cell runs, none fails, with or without the large data sets, and saving gives back the file that stands in git, with the same words"
    page = run_all(lab, browser, f'{name}.ipynb')
    if name=='15_inference': judged_at_once(page)
    page.evaluate(f"{NOTEBOOK}.context.save()")
    until(lambda: not page.evaluate(f"{NOTEBOOK}.context.model.dirty"), 60)
    page.close()
    file = f'nbs/{name}.ipynb'
    changed = {c.split()[-1] for c in git(lab.copy, 'status', '--porcelain').splitlines()} - {'.gitattributes'}
    saved,stored = (lab.copy/file).read_text(encoding='utf-8'), git(lab.copy, 'show', f'HEAD:{file}')
    folders = ['--', 'nbs', 'sentiment_nb']
    diff = git(lab.copy, 'diff', '--stat', *folders) + git(lab.copy, 'diff', '-U0', *folders)[:3000]
    git(lab.copy, 'checkout', '--', 'nbs', 'sentiment_nb')
    print(name, 'came back with other numbers' if changed else 'came back to the last digit')
    if 'SENTIMENT_NB_DATA' in os.environ or not wants_data(name): # without the large data sets, a slow cell says less than what is stored
        assert changed<={file} and words(saved)==words(stored), diff

