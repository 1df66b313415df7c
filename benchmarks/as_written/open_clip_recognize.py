"""One picture and labels → probabilities, as in open_clip's README.

Usage: open_clip_recognize.py MODEL PICTURE LABEL,LABEL,...
"""

import json
import sys

from peers import import_open_clip

open_clip = import_open_clip()
import torch  # noqa: E402
from PIL import Image  # noqa: E402

folder, picture, labels = f"local-dir:{sys.argv[1]}", sys.argv[2], sys.argv[3].split(",")
model, _, preprocess = open_clip.create_model_and_transforms(folder)
model.eval()
tokenizer = open_clip.get_tokenizer(folder)
image = preprocess(Image.open(picture)).unsqueeze(0)
text = tokenizer(labels)
with torch.no_grad():
    image_features = model.encode_image(image, normalize=True)
    text_features = model.encode_text(text, normalize=True)
    probabilities = (model.logit_scale.exp() * image_features @ text_features.T).softmax(dim=-1)[0]
print(json.dumps(dict(zip(labels, probabilities.tolist(), strict=True))))
