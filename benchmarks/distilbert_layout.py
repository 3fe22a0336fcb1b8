"""A real pretrained DistilBERT where no hub can be reached: MiniLM's encoder, rewritten in DistilBERT's layout

    python benchmarks/distilbert_layout.py OUT
    HF_HOME=OUT HF_HUB_OFFLINE=1 sentiment-nb train data/processed --model distilbert

DistilBERT has BERT's layers without token types and without a pooler. All texts here are of token type 0, so
its embedding is added to each position's, and the hidden states stay the same.
"""
import json
import re
import shutil
import sys
from hashlib import sha1
from pathlib import Path

from transformers import AutoModel, DistilBertConfig, DistilBertModel

from sentiment_nb.encoders import HUB_IDS, resolve_encoder

RENAMED = { # BERT's names, the longer ones first
    'encoder.layer': 'transformer.layer',
    'attention.self.query': 'attention.q_lin',
    'attention.self.key': 'attention.k_lin',
    'attention.self.value': 'attention.v_lin',
    'attention.output.dense': 'attention.out_lin',
    'attention.output.LayerNorm': 'sa_layer_norm',
    'intermediate.dense': 'ffn.lin1',
    'output.dense': 'ffn.lin2',
    'output.LayerNorm': 'output_layer_norm'}

def rename(key):
    "DistilBERT's name of one of BERT's tensors"
    return re.sub('|'.join(map(re.escape, RENAMED)), lambda m: RENAMED[m[0]], key)

def distilbert_from_bert(bert):
    "A `DistilBertModel` with the hidden states of a small `BertModel`"
    c = bert.config
    config = DistilBertConfig(vocab_size=c.vocab_size, max_position_embeddings=c.max_position_embeddings,
        sinusoidal_pos_embds=False, n_layers=c.num_hidden_layers, n_heads=c.num_attention_heads, dim=c.hidden_size,
        hidden_dim=c.intermediate_size, activation=c.hidden_act, pad_token_id=c.pad_token_id)
    def is_kept(key): return not key.startswith('pooler.') and not key.endswith(('position_ids', 'token_type_ids'))
    state = {rename(k): v for k,v in bert.state_dict().items() if is_kept(k)}
    positions = 'embeddings.position_embeddings.weight'
    state[positions] = state[positions] + state.pop('embeddings.token_type_embeddings.weight')[0]
    model = DistilBertModel(config)
    lost = model.load_state_dict(state, strict=False)
    assert not lost.unexpected_keys and all('position_ids' in k for k in lost.missing_keys), lost
    norms = [m for n,m in model.named_modules() if n.endswith(('LayerNorm', 'layer_norm'))]
    assert {m.eps for m in norms}=={c.layer_norm_eps}
    return model.eval()

def write_hub_cache(home, name=HUB_IDS['distilbert']):
    "Write the model into `home`, laid out as `HF_HOME` is, under the hub's name; returns the model's folder"
    encoder = resolve_encoder('minilm')
    revision = sha1(b'MiniLM in the layout of DistilBERT').hexdigest()
    repo = Path(home)/'hub'/f"models--{name.replace('/', '--')}"
    folder = repo/'snapshots'/revision
    folder.mkdir(parents=True, exist_ok=True)
    distilbert_from_bert(AutoModel.from_pretrained(encoder)).save_pretrained(folder)
    for f in ('tokenizer.json', 'vocab.txt'): shutil.copy(encoder/f, folder)
    tokenizer_config = json.dumps({'do_lower_case': True, 'model_max_length': 512})
    (folder/'tokenizer_config.json').write_text(tokenizer_config, encoding='utf-8')
    (repo/'refs').mkdir(exist_ok=True)
    (repo/'refs'/'main').write_text(revision, encoding='utf-8')
    return folder

def main():
    if len(sys.argv)!=2: sys.exit(__doc__)
    print(f'{write_hub_cache(sys.argv[1])}\nHF_HOME={sys.argv[1]} makes it the `distilbert` of `sentiment-nb train`')

if __name__=='__main__': main()
