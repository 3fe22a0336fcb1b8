r"""How far does a model carry beyond the texts that it was trained on? Every model on every test set: accuracy with its 95 % interval.

Method: models of two kinds, trained on tweets, reviews and phrases of film critics (SST-2, Socher et al. 2013), each
judged on held-out texts of all three; a row is a model, a column a test set. The first --limit texts of a shuffled
test split are used; of SST-2 it is the development set of GLUE, whole sentences, 872 of them. What a source calls
neutral is left out.

    python benchmarks/cross_domain.py --sst2 FOLDER     # with train.tsv, dev.tsv and glue_dev.tsv: writes data/sst2-splits
    sentiment-nb prepare data/sst2-splits --out data/sst2
    sentiment-nb train data/sst2 --model minilm --out models/sst2 --limit 16000 --epochs 1 --max-length 64
    sentiment-nb export models/sst2 --data data/sst2
    sentiment-nb train data/sst2 --model linear --out models/sst2-linear
    python benchmarks/cross_domain.py --data data/quickstart data/imdb-nocad data/sst2 \
        --models models/quickstart models/imdb-8000 models/sst2 \
            models/quickstart-linear models/imdb-nocad-linear models/sst2-linear
"""
import argparse, csv
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save
from sentiment_nb.data import label_indices, load_prepared
from sentiment_nb.evaluation_report import predict_all, short_scores
from sentiment_nb.inference import Predictor

def write_sst2(folder, out='data/sst2-splits'):
    "SST-2 as a folder of splits, which `prepare` takes as they are"
    Path(out).mkdir(parents=True, exist_ok=True)
    for split,name in (('train','train'), ('val','dev'), ('test','glue_dev')):
        rows = pd.read_csv(Path(folder)/f'{name}.tsv', sep='\t', quoting=csv.QUOTE_NONE)
        labels = np.array(['negative','positive'])[rows['label']]
        pd.DataFrame({'text': rows['sentence'], 'label': labels}).to_csv(f'{out}/{split}.csv', index=False)
    (Path(out)/'prepared.json').write_text('{}')

def judge(folder, data, limit, seed):
    "Accuracy and macro F1 of one model on one test split"
    predictor = Predictor(folder)
    test = load_prepared(data)['test'].shuffle(seed=seed)
    test = test.select(range(min(limit, len(test))))
    names = predictor.record.labels
    y = np.array(label_indices(test, names))
    return short_scores(predict_all(predictor, test['text'][:]), y, len(names))

def format_score(score): return f"{100*score['value']:.1f} [{100*score['low']:.1f}, {100*score['high']:.1f}]"

def table_row(model, scores, metric):
    "What the table shows of a model: one metric on every test set"
    return {'trained': model} | {f"on {data} ({s['n']:,})": format_score(s[metric]) for data,s in scores.items()}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--models', nargs='+', default=[], help='model folders')
    p.add_argument('--data', nargs='+', default=[], help='prepared folders')
    p.add_argument('--sst2', help='folder of SST-2: write its splits, and nothing else')
    p.add_argument('--limit', type=int, default=5000, help='test texts of each')
    p.add_argument('--seed', type=int, default=42)
    args = p.parse_args()
    if args.sst2: return write_sst2(args.sst2)
    scores = {}
    for m in args.models: scores[Path(m).name] = {Path(d).name: judge(m, d, args.limit, args.seed) for d in args.data}
    for metric in ('accuracy','macro_f1'):
        rows = [table_row(m, s, metric) for m,s in scores.items()]
        print_table(rows, f'{metric}, in percent, with 95 % intervals')
    save('cross_domain', args, 'onnxruntime', dict(results=scores))

if __name__=='__main__': main()
