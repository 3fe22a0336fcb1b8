"Folders that others saved with transformers: each is exported with PyTorch's own answers, or refused in one line that names what is wrong, and nothing half-made is left."
import json
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from sentiment_nb.cleaning import clean_text
from sentiment_nb.data import load_tweets
from sentiment_nb.inference import Predictor
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

POSITIONS = 64
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
NAMES = {0: 'POSITIVE', 1: 'NEGATIVE'} # the other way round than this package has them
LAYERS = dict(num_hidden_layers=2, num_attention_heads=2)
SMALL = dict(hidden_size=32, intermediate_size=64, max_position_embeddings=POSITIONS, **LAYERS)
HEADS = dict(num_key_value_heads=2)
DEBERTA = dict(relative_attention=True, pos_att_type=['c2p', 'p2c'], position_biased_input=False)
SEQ2SEQ = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=64, decoder_ffn_dim=64)
GROUPS = {f'{n}_groups': 2 for n in ('q', 'k', 'v', 'intermediate', 'output')} | {'post_attention_groups': 1}
EXPORTED = { # Kind of network: settings beside `SMALL`
    'bert': {}, 'distilbert': dict(dim=32, n_layers=2, n_heads=2, hidden_dim=64), 'roberta': {}, 'xlm-roberta': {},
    'camembert': {}, 'electra': dict(embedding_size=16), 'albert': dict(embedding_size=16), 'mpnet': {}, 'ernie': {},
    'deberta': DEBERTA | {'max_relative_positions': -1}, 'deberta-v2': DEBERTA | {'position_buckets': 16},
    'modernbert': {}, 'squeezebert': dict(embedding_size=32, **GROUPS), 'roformer': dict(embedding_size=32),
    'rembert': dict(input_embedding_size=16, output_embedding_size=16),
    'big_bird': dict(attention_type='original_full'),
    'xlm': dict(emb_dim=32, n_layers=2, n_heads=2), 'gpt2': {}, 'opt': dict(ffn_dim=64, word_embed_proj_dim=32),
    'llama': HEADS, 'mistral': HEADS | {'sliding_window': 16}, 'qwen2': HEADS, 'gemma': HEADS | {'head_dim': 16},
    'gpt_neo': dict(attention_types=[[['global', 'local'], 1]], num_layers=2, num_heads=2, window_size=16),
    'bloom': dict(n_layer=2, n_head=2)}
REFUSED = {'bart': SEQ2SEQ, 'mbart': SEQ2SEQ, 't5': dict(d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2),
    'fnet': {}, 'longformer': dict(attention_window=8), 'convbert': {}, 'nystromformer': {},
    'mobilebert': dict(embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32, num_feedforward_networks=1)}
QUICK = 'bart', # tried by every `make test`, the others by `make test-all`

@cache
def word_pieces():
    "A tokenizer of a thousand pieces, learnt from tweets"
    t = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=1000, special_tokens=SPECIAL, show_progress=False)
    t.train_from_iterator(load_tweets()['text'][:2000], trainer)
    t.post_processor = processors.TemplateProcessing('[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
    return t

def make_tokenizer(extra=()):
    "The tokenizer as transformers wraps it; `extra` are tokens for which no network has a vector"
    t = PreTrainedTokenizerFast(tokenizer_object=word_pieces(), pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]',
        sep_token='[SEP]', mask_token='[MASK]', bos_token='[CLS]', eos_token='[SEP]', model_max_length=POSITIONS-2)
    t.add_tokens(list(extra))
    return t

def save(folder, kind='bert', settings=None, tokenizer=None, n_tokens=None, **saving):
    "A small random classifier in the standard layout"
    tokenizer = tokenizer or make_tokenizer()
    ids = dict(pad_token_id=tokenizer.pad_token_id, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
    size = dict(vocab_size=n_tokens or len(tokenizer), id2label=NAMES, label2id={v: k for k,v in NAMES.items()})
    config = AutoConfig.for_model(kind, **SMALL | ids | size | (settings or {}))
    torch.manual_seed(1)
    net = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim>1: p.copy_(torch.randn_like(p)*.2)
    net.save_pretrained(folder, **saving)
    tokenizer.save_pretrained(folder)
    return folder

def texts(): return [*load_tweets()['text'][:40], 'one', 'word after word after word '*20]

@torch.inference_mode()
def by_transformers(folder, max_length):
    "Probabilities, one text at a time and without any padding, in this package's order of classes"
    net = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    def logits(text):
        batch = tokenizer(clean_text(text), truncation=True, max_length=max_length, return_tensors='pt')
        return net(input_ids=batch['input_ids'], attention_mask=batch['attention_mask']).logits[0]
    return torch.stack([logits(t) for t in texts()]).softmax(-1).numpy()[:,::-1]

@pytest.fixture
def exports(cli, workdir):
    "Export a folder; the answers must be those of transformers"
    def run(folder='theirs'):
        done = cli('export', folder, '--out', 'taken', '--no-int8')
        assert done.code==0, done
        predictor = Predictor('taken', 'onnx')
        wanted = by_transformers(folder, predictor.record.max_length)
        assert np.ptp(wanted[:,0])>.02 and np.abs(predictor.predict_proba(texts())-wanted).max()<1e-5
        assert sorted(p.name for p in workdir.iterdir())==['.taken.lock', 'taken', folder]
    return run

@pytest.fixture
def refuses_to_export(refuses):
    "Exporting a folder ends in one line with these parts, and leaves nothing"
    def run(*parts, folder='theirs'): return refuses(['export', folder, '--out', 'taken', '--no-int8'], *parts)
    return run

def slow_but(quick, kinds):
    "Parameters, of which all but some are tried by `make test-all` only"
    return [pytest.param(k, marks=() if k in quick else pytest.mark.slow) for k in kinds]

@pytest.mark.parametrize('kind', slow_but(QUICK, EXPORTED))
def test_kinds_that_are_exported(kind, exports):
    "Encoders of BERT's family, and decoders, whose heads look for the last token that is no padding"
    save('theirs', kind, EXPORTED[kind])
    exports()

@pytest.mark.parametrize('kind', slow_but(QUICK, REFUSED))
def test_kinds_that_are_refused(kind, refuses_to_export, refuses, tiny):
    "By name, and before a training that would be for nothing"
    save('theirs', kind, REFUSED[kind])
    refuses_to_export('theirs', f'of the kind {kind}')
    refuses(['train', tiny.data, '--model', 'theirs', '--max-length', 16, '--limit', 64, '--out', 'out'], f'of the kind {kind}')

def test_padding_with_another_number(exports):
    "The decoder's padding is not 0, and the graph puts it where the batch has zeros"
    tokenizer = make_tokenizer(['[FILL]'])
    tokenizer.pad_token = '[FILL]'
    save('theirs', 'gpt2', tokenizer=tokenizer)
    exports()

def test_no_padding_token(refuses_to_export):
    "A batch of texts cannot be made"
    save('theirs', 'gpt2', {'pad_token_id': None})
    config = json.loads(Path('theirs/tokenizer_config.json').read_text())
    Path('theirs/tokenizer_config.json').write_text(json.dumps({k: v for k,v in config.items() if k!='pad_token'}))
    refuses_to_export('gpt2', 'padding token')

def drop(*names):
    for n in names: Path('theirs', n).unlink()

def cut(name, share=.5):
    blob = Path('theirs', name).read_bytes()
    Path('theirs', name).write_bytes(blob[:int(len(blob)*share)])

def write_vocab(words):
    "A vocab.txt in place of tokenizer.json"
    drop('tokenizer.json', 'tokenizer_config.json')
    Path('theirs/vocab.txt').write_text(''.join(f'{w}\n' for w in words), encoding='utf-8')
    Path('theirs/tokenizer_config.json').write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')

def ordered_words(): return sorted(word_pieces().get_vocab(), key=word_pieces().get_vocab().get)

@pytest.mark.parametrize('door', ['export', 'train'])
def test_forgotten_tokenizer(door, refuses, tiny):
    "Of which transformers makes up one with five tokens, to which every word is unknown"
    save('theirs')
    drop('tokenizer.json', 'tokenizer_config.json')
    more = [] if door=='export' else [tiny.data, '--max-length', 16, '--limit', 64, '--model']
    refuses([door, *more, 'theirs', '--out', 'out'], 'theirs has no tokenizer', 'tokenizer.save_pretrained')

def test_tokenizer_larger_than_the_network(refuses_to_export):
    "An added token without a vector"
    save('theirs', tokenizer=make_tokenizer(['brandnew']), n_tokens=1000)
    refuses_to_export('1,001 tokens', '1,000', 'do not belong together')

def test_tokenizer_of_a_smaller_network(refuses_to_export):
    "Half of the network's vectors belong to no token"
    save('theirs', n_tokens=2000)
    refuses_to_export('1,000 tokens', '2,000', 'do not belong together')

def test_words_of_another_language(refuses_to_export):
    "The right number of tokens, and none for the words of real texts"
    save('theirs')
    write_vocab([*SPECIAL, *(chr(0x4e00+i) for i in range(1000-len(SPECIAL)))])
    refuses_to_export('unknown to the model', 'language')

def write_sentencepiece(name, text_class):
    "A network whose tokenizer is a SentencePiece model and nothing else"
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(load_tweets()['text'][:2000]), vocab_size=800,
        model_writer=model, minloglevel=2, pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece='[PAD]', unk_piece='[UNK]',
        bos_piece='[CLS]', eos_piece='[SEP]')
    Path('theirs').mkdir(exist_ok=True)
    Path('theirs', name).write_bytes(model.getvalue())
    Path('theirs/tokenizer_config.json').write_text(json.dumps({'tokenizer_class': text_class}))

@pytest.mark.slow
def test_sentencepiece_only(exports):
    "As deberta-v3-base and many multilingual classifiers have it"
    write_sentencepiece('spm.model', 'DebertaV2Tokenizer')
    tokenizer = AutoTokenizer.from_pretrained('theirs', trust_remote_code=False)
    save('theirs', 'deberta-v2', EXPORTED['deberta-v2'], n_tokens=len(tokenizer))
    drop('tokenizer.json')
    Path('theirs/tokenizer_config.json').write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    exports()

def test_sentencepiece_that_cannot_be_read(refuses_to_export):
    "Nobody is told to install a package that has nothing to do with it"
    save('theirs', 'xlm-roberta')
    drop('tokenizer.json')
    Path('theirs/tokenizer_config.json').write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    Path('theirs/sentencepiece.bpe.model').write_bytes(b'no protocol buffer')
    assert 'tiktoken' not in refuses_to_export('sentencepiece.bpe.model', 'SentencePiece')

@pytest.mark.slow
def test_shards(exports):
    "Weights in several files"
    save('theirs', max_shard_size='50KB')
    assert len(list(Path('theirs').glob('*.safetensors')))>1
    exports()

@pytest.mark.slow
def test_shard_missing(refuses_to_export):
    save('theirs', max_shard_size='50KB')
    min(Path('theirs').glob('*.safetensors')).unlink()
    refuses_to_export('theirs')

@pytest.mark.slow
def test_vocab_txt(exports):
    "The layout of older models"
    save('theirs')
    write_vocab(ordered_words())
    exports()

@pytest.mark.slow
def test_vocab_txt_cut(refuses_to_export):
    save('theirs')
    write_vocab(ordered_words()[:500])
    refuses_to_export('do not belong together')

@pytest.mark.slow
@pytest.mark.parametrize('name', ['tokenizer.json', 'model.safetensors', 'config.json'])
def test_cut_in_two(name, refuses_to_export):
    save('theirs')
    cut(name)
    refuses_to_export('theirs')

@pytest.mark.slow
def test_code_is_not_run(exports, workdir):
    "A folder that brings code for a kind that transformers has is read without it"
    save('theirs')
    for name,key in (('config.json', 'AutoConfig'), ('tokenizer_config.json', 'AutoTokenizer')):
        path = Path('theirs', name)
        path.write_text(json.dumps(json.loads(path.read_text()) | {'auto_map': {key: 'evil.Evil'}}))
    Path('theirs/evil.py').write_text(f'open({str(workdir/"ran")!r}, "w")\nclass Evil: pass')
    exports()

@pytest.mark.slow
def test_pickled_weights(refuses_to_export):
    "Unpickling runs code"
    save('theirs')
    drop('model.safetensors')
    Path('theirs/pytorch_model.bin').write_bytes(b'\x80\x04N.')
    refuses_to_export('safetensors')
