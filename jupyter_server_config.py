"""The JupyterLab of `make lab` saves notebooks as they stand in git: cleaned by nbdev, without progress bars and without what went to standard error."""
# ruff: noqa: F821 (Jupyter gives `c`)
from nbdev.clean import clean_jupyter

WIDGET = 'application/vnd.jupyter.widget-view+json'

def passes(o): return o.get('name')!='stderr' and not (WIDGET in o.get('data', {}) and 'text/html' not in o['data'])

def lasting(outputs):
    "Outputs that mean something tomorrow; what a bar had parted is joined again"
    kept = []
    for o in filter(passes, outputs):
        if kept and o.get('name')==kept[-1].get('name')=='stdout': kept[-1] = kept[-1] | {'text': ''.join(kept[-1]['text']) + ''.join(o['text'])}
        else: kept.append(o)
    return kept

def save_clean(path, model, contents_manager):
    if model['type']=='notebook' and model['content']:
        for cell in model['content']['cells']:
            if 'outputs' in cell: cell['outputs'] = lasting(cell['outputs'])
    clean_jupyter(path=path, model=model, contents_manager=contents_manager)

c.ContentsManager.pre_save_hook = save_clean
