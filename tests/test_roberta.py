"A RoBERTa-like encoder: byte-level tokenizer, positions that start behind the padding, no token types; made here and trained from a local folder."
import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from sentiment_nb.cleaning import clean_text
from sentiment_nb.core import InputError, ModelRecord, encode, write_checksums
from sentiment_nb.data import load_prepared
from sentiment_nb.inference import FLOAT_TOLERANCE, Predictor, explain_gradients, export_onnx
from sentiment_nb.training import import_classifier, load_quickstart, torch_logits, train_transformer
from tokenizers import ByteLevelBPETokenizer, Tokenizer

SPECIAL = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
POSITIONS = 50 # of which two, up to the padding's own number, stay unused

def write_encoder(folder, texts):
    "A small random RoBERTa with a tokenizer trained on `texts`, in the files that the hub has"
    from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizer, set_seed
    folder.mkdir()
    set_seed(0) # of its weights, whatever ran before
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=1500, special_tokens=SPECIAL, show_progress=False)
    bpe.save_model(str(folder))
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    config = RobertaConfig(vocab_size=bpe.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=POSITIONS, type_vocab_size=1)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder

@pytest.fixture(scope='module')
def roberta(tmp_path_factory):
    "Encoder, trained and exported model, held-out texts, and what the gate found"
    home = tmp_path_factory.mktemp('roberta')
    data = load_quickstart().data
    splits = load_prepared(data)
    encoder = write_encoder(home/'encoder', splits['train']['text'][:4000])
    model = train_transformer(data, home/'model', encoder, epochs=2, limit=1500, max_length=POSITIONS-2,
        truncation='head+tail', learning_rate=3e-3)
    texts = splits['test']['text'][:400]
    engines = export_onnx(model, texts, labels=splits['test']['label'][:400])
    return SimpleNamespace(encoder=encoder, model=model, data=data, texts=texts, engines=engines)

def test_it_is_one(roberta):
    "The class, the number of the padding and the byte-level tokenizer arrive in the model folder"
    config = (roberta.model/'config.json').read_text()
    tokenizer = Tokenizer.from_file(str(roberta.model/'tokenizer.json'))
    assert '"RobertaForSequenceClassification"' in config and '"pad_token_id": 1' in config
    assert tokenizer.token_to_id('<pad>')==1
    assert tokenizer.decode(tokenizer.encode('فيلم 😀').ids)=='فيلم 😀'

def test_positions_end_before_the_table(roberta, tmp_path):
    "Two of the table's rows are never used, so a text may have two tokens fewer; the fixture trained with all that are left"
    with pytest.raises(InputError, match='expected 4 to 48 tokens'):
        train_transformer(roberta.data, tmp_path/'m', roberta.encoder, limit=64, max_length=POSITIONS-1)
    predicted = Predictor(roberta.model, 'onnx').predict(roberta.texts)
    assert any(p.truncated for p in predicted) and ModelRecord.load(roberta.model).max_length==POSITIONS-2

def test_the_gate_passes(roberta):
    "Float to 1e-3 and int8 by labels and accuracy, on a model whose answers differ from text to text"
    reference = torch_logits(roberta.model, roberta.texts)
    assert np.ptp(reference[:,1]-reference[:,0])>2 and 10<reference.argmax(1).sum()<len(reference)-10
    onnx_gate = roberta.engines['onnx']
    int8_gate = roberta.engines['int8']
    assert onnx_gate['passed'] and onnx_gate['max_difference']<1e-4
    assert int8_gate['passed'] and abs(int8_gate['accuracy_change'])<=.005, roberta.engines

def test_last_layer_finishes_the_first_token_only(roberta):
    "The graph has the pattern, though the head differs from BERT's, and the gate has found the same logits"
    nodes = onnx.load(str(roberta.model/'onnx'/'model.onnx')).graph.node
    assert sum(n.op_type=='Slice' and n.output[0].endswith('_first') for n in nodes)==2

def test_alone_and_in_a_batch(roberta):
    "One text at a time, all together, and by torch, which pads with the tokenizer's own number"
    predictor = Predictor(roberta.model, 'onnx')
    together = predictor.predict_proba(roberta.texts)
    alone = np.concatenate([predictor.predict_proba([t]) for t in roberta.texts])
    wanted = predictor.record.to_probs(torch_logits(roberta.model, roberta.texts))
    assert np.abs(alone-together).max()<1e-5
    assert np.abs(together-wanted).max()<FLOAT_TOLERANCE

@pytest.mark.parametrize('pad', [0, 1, 7])
def test_what_stands_in_the_padding_does_not_matter(roberta, pad):
    "Positions are counted from the left and the mask hides the rest, whichever number fills it"
    record = ModelRecord.load(roberta.model)
    session = ort.InferenceSession(str(roberta.model/'onnx'/'model.onnx'))
    tokenizer = Tokenizer.from_file(str(roberta.model/'tokenizer.json'))
    texts = roberta.texts[:40]
    ids, _ = encode(tokenizer, [clean_text(t, record.policy) for t in texts], record.max_length, record.truncation)
    lengths = np.array(list(map(len, ids)))
    mask = (np.arange(lengths.max())<lengths[:,None]).astype(np.int64)
    batch = np.full_like(mask, pad)
    batch[mask==1] = np.concatenate(ids)
    assert (mask==0).mean()>.2
    logits = session.run(None, {'input_ids': batch, 'attention_mask': mask})[0]
    assert np.abs(logits-torch_logits(roberta.model, texts)).max()<1e-4

def whole_texts(predictor, texts):
    "Those that are not truncated"
    return [t for t,p in zip(texts, predictor.predict(texts)) if not p.truncated]

def test_pipeline_agrees(roberta):
    "transformers.pipeline reads the same folder and predicts the same"
    from transformers import pipeline
    predictor = Predictor(roberta.model, 'onnx')
    predictor.record.temperature = 1. # transformers knows nothing of calibration
    predictor.record.bend = 0.
    texts = whole_texts(predictor, roberta.texts[:64]) # nor of head+tail
    ours = predictor.predict(texts)
    theirs = pipeline('text-classification', str(roberta.model))([clean_text(t) for t in texts])
    assert len(ours)>30 and [p.label for p in ours]==[p['label'] for p in theirs]
    assert np.allclose([p.confidence for p in ours], [p['score'] for p in theirs], atol=1e-3)

def test_taken_over(roberta, tmp_path):
    "What transformers needs of the folder is enough: the same scores, and as many tokens as there are positions"
    ours_only = shutil.ignore_patterns('sentiment_nb.json', 'SHA256SUMS', 'onnx')
    shutil.copytree(roberta.model, tmp_path/'theirs', ignore=ours_only)
    model = import_classifier(tmp_path/'theirs', tmp_path/'m')
    short = whole_texts(Predictor(roberta.model, 'onnx'), roberta.texts)
    record = ModelRecord.load(model)
    assert (record.labels, record.max_length)==(['negative', 'positive'], POSITIONS-2)
    assert (record.data, record.conformal)==({'source': 'unknown'}, {})
    assert len(short)>100 and np.array_equal(torch_logits(model, short), torch_logits(roberta.model, short))

def test_three_classes_taken_over(roberta, tmp_path):
    "In an order of their own, of which negative, neutral, positive is no mirror image"
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification
    shutil.copytree(roberta.encoder, tmp_path/'theirs')
    names = {0: 'neutral', 1: 'positive', 2: 'negative'}
    config = RobertaConfig.from_pretrained(roberta.encoder, num_labels=3, id2label=names)
    net = RobertaForSequenceClassification(config).eval()
    net.save_pretrained(tmp_path/'theirs')
    model = import_classifier(tmp_path/'theirs', tmp_path/'m')
    record = ModelRecord.load(model)
    assert record.labels==['negative', 'neutral', 'positive']
    texts = roberta.texts[:20]
    tokenizer = Tokenizer.from_file(str(model/'tokenizer.json'))
    ids, _ = encode(tokenizer, [clean_text(t) for t in texts], record.max_length)
    with torch.inference_mode(): theirs = np.concatenate([net(torch.tensor([i])).logits.numpy() for i in ids])
    assert np.allclose(torch_logits(model, texts), theirs[:,[2, 0, 1]], atol=1e-5)

def test_a_megabyte(roberta):
    "One word of a million letters, which has to be merged pair by pair"
    assert Predictor(roberta.model).predict('ب'*10**6).truncated

def test_gradients_reach_every_word(roberta, tmp_path):
    """No word is left without its tokens

    Not even where the tokenizer counts the space before a word to its token, as those of XLM-R and ModernBERT do.
    """
    text = max((t for t in roberta.texts if len(t)<80), key=len)
    scores = [e.score for e in explain_gradients(roberta.model, text, n_steps=8)]
    assert len(scores)>3 and all(s!=0 for s in scores)
    shutil.copytree(roberta.model, tmp_path/'m')
    file = tmp_path/'m'/'tokenizer.json'
    tokenizer = json.loads(file.read_text())
    tokenizer['post_processor']['trim_offsets'] = False
    file.write_text(json.dumps(tokenizer))
    write_checksums(tmp_path/'m')
    words = Tokenizer.from_file(str(file)).encode('so good')
    assert words.offsets[-2][1]==7 and any(a==2 for a,_ in words.offsets) # the space's place
    untrimmed = [e.score for e in explain_gradients(tmp_path/'m', text, n_steps=8)]
    assert untrimmed==pytest.approx(scores, abs=1e-4)
