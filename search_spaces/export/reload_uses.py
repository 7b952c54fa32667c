"""What an exported model's script does with it: classifies images, or goes on with a text.

Each is what stands at the marks of ``reload_text``.
"""

from __future__ import annotations

IMAGES = {
    "@COMMANDS@": """\
    python reload.py               checks every format here against the example
    python reload.py --image FILE  classifies an image""",
    "@MORE_IMPORTS@": """\
import json
""",
    "@CONSTANTS@": "",
    "@ARGUMENTS@": """\
    parser.add_argument("--image", metavar="FILE", help="classify this image")
""",
    "@ACTION@": """\
    if options.image:
        classify(options.image, options.format)
""",
    "@FUNCTIONS@": '''def preprocessing() -> dict:
    """Return the input's size, mean and deviation per channel, and the names of the classes."""
    path = HERE / "preprocessing.json"
    if not path.is_file():
        sys.exit("Nothing is known of this model's images: there is no preprocessing.json.")
    return json.loads(path.read_text(encoding="utf-8"))


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Map images (b, c, h, w) in 0..1 to inputs of the model."""
    facts = preprocessing()
    mean, std = (torch.tensor(facts[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


def read_image(path: str) -> torch.Tensor:
    """Read an image file as an input (1, c, h, w): scaled, cropped in the middle, normalised."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        sys.exit("--image needs Pillow: pip install pillow")
    channels, height, width = preprocessing()["size"]
    if channels not in (1, 3):
        sys.exit(f"The model's input has {channels} channels; an image has 1 or 3.")
    try:
        with Image.open(path) as file:
            image = file.convert("L" if channels == 1 else "RGB")
    except OSError as problem:
        sys.exit(f"Cannot read the image: {problem}")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.reshape(height, width, channels).permute(2, 0, 1)
    return normalise(pixels[None].float() / 255)


def classify(path: str, kind: str) -> None:
    """Print the most likely classes of an image and their probabilities."""
    with torch.inference_mode():
        shares = load_model(kind)(read_image(path))[0].softmax(0)
    classes = preprocessing()["classes"]
    for share, index in zip(*shares.topk(min(5, len(classes))), strict=True):
        print(f"{share:7.2%}  {classes[int(index)]}")
''',
}

LANGUAGE = {
    "@COMMANDS@": """\
    python reload.py                  checks every format here against the example
    python reload.py --generate TEXT  goes on with a text""",
    "@MORE_IMPORTS@": """\
import itertools
import json
import re
""",
    "@CONSTANTS@": """\
# No pair of bytes is merged across the borders of these pieces of a text.
PIECES = r" ?[^\\W\\d_]+| ?\\d+| ?[^\\w\\s]+|\\s+(?!\\S)|\\s+|_+"
""",
    "@ARGUMENTS@": """\
    parser.add_argument("--generate", metavar="TEXT", help="go on with this text")
    parser.add_argument("--tokens", type=int, default=200, help="to write (200)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest (0.8)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
""",
    "@ACTION@": """\
    if options.generate is not None:
        torch.manual_seed(options.seed)
        # Threads that share too little work wait for one another: 4 million parameters each.
        size = max(file.stat().st_size for file in HERE.iterdir())
        torch.set_num_threads(max(1, min(torch.get_num_threads(), size >> 24)))
        print(generate(options.generate, options.tokens, options.temperature, options.format))
""",
    "@FUNCTIONS@": '''def preprocessing() -> dict:
    """Return what a token is, the bytes of each, and how many the model reads at a time."""
    path = HERE / "preprocessing.json"
    if not path.is_file():
        sys.exit("Nothing is known of this model's text: there is no preprocessing.json.")
    return json.loads(path.read_text(encoding="utf-8"))


def encode(text: str) -> list[int]:
    """Return the token ids of a text."""
    facts = preprocessing()
    ids = {token: number for number, token in enumerate(facts["tokens"])}
    pieces = re.findall(PIECES, text) if facts["kind"] == "bpe" else text
    tokens = []
    for piece in pieces:
        as_bytes = piece.encode().decode("latin-1")  # a byte is the character of its number
        tokens += [as_bytes] if facts["kind"] == "char" else merge(as_bytes, ids)
    unknown = next((token for token in tokens if token not in ids), None)
    if unknown is not None:
        sys.exit(f"The model knows no {unknown.encode('latin-1').decode()!r}.")
    return [ids[token] for token in tokens]


def merge(piece: str, ids: dict[str, int]) -> list[str]:
    """Join neighbouring bytes, the pair that was learned first before the others."""
    tokens = list(piece)
    while len(tokens) > 1:
        pairs = [a + b for a, b in itertools.pairwise(tokens)]
        first = min(pairs, key=lambda pair: ids.get(pair, len(ids)))
        if first not in ids:
            break
        at = pairs.index(first)
        tokens[at : at + 2] = [first]
    return tokens


def decode(ids: list[int]) -> str:
    """Return the text of token ids."""
    tokens = preprocessing()["tokens"]
    return "".join(tokens[item] for item in ids).encode("latin-1").decode(errors="replace")


def generate(start: str, count: int, temperature: float = 0.8, kind: str = "") -> str:
    """Return a text with as many tokens behind it as were asked for.

    Where its cache is full, the model goes on from the last half of what it can read.

    Args:
        start: the text.
        count: tokens to write.
        temperature: of the drawing; the likeliest token is taken at 0.
        kind: as in load_model.
    """
    kind = kind or present()[0]
    model, room = load_model(kind), preprocessing()["context"]
    ids, cache, new = encode(start) or [0], None, []
    for _ in range(count):
        if kind == "python":  # each token is read once
            if cache is None or cache.length == room:
                new = ids[-(room if cache is None else max(room // 2, 1)) :]
                cache = load_source().Cache(room)
            with torch.inference_mode():
                logits = model(torch.tensor([new]), cache)[0, -1]
        else:  # reads as many tokens as it can; a token does not see those behind it
            kept = ids[-room:]
            padded = torch.tensor([kept + [0] * (room - len(kept))])
            with torch.inference_mode():
                logits = model(padded)[0, len(kept) - 1]
        shares = (logits / max(temperature, 1e-6)).softmax(0)
        new = [int(shares.multinomial(1) if temperature > 0 else shares.argmax())]
        ids += new
    return decode(ids)
''',
}
