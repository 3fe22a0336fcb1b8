"Reads settings.ini, the only place for metadata, and hands it to setuptools."
import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
ini = ConfigParser()
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

def names(key): return shlex.split(cfg.get(key, ''))

extras = {k.removesuffix('_requirements'): names(k) for k in cfg if k.endswith('_requirements')}
stages = {'1': 'Planning', '2': 'Pre-Alpha', '3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
first, last = (int(cfg[k].split('.')[1]) for k in ('min_python', 'max_python'))
readme = here/'README.md'

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    author=cfg['author'],
    license=cfg['license'],
    keywords=names('keywords'),
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host']+cfg['doc_baseurl'], 'Issues': cfg['git_url']+'/issues'},
    classifiers=[
        f"Development Status :: {cfg['status']} - {stages[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Text Processing :: Linguistic',
        'Typing :: Typed',
        *[f'Programming Language :: Python :: 3.{n}' for n in range(first, last+1)],
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg['lib_name'], f"{cfg['lib_name']}.*"]),
    package_data={cfg['lib_name']: ['py.typed', '*.txt']},
    install_requires=names('requirements'),
    extras_require=extras,
    entry_points={
        'console_scripts': names('console_scripts'),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
    zip_safe=False,
)
