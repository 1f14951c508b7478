"""Entry points of ``torch.hub.load('ORG/torchgeo_caco', 'caco_resnet18', weights=...)``."""

dependencies = [
    'affine', 'filelock', 'geopandas', 'huggingface_hub', 'jsonargparse', 'kornia', 'lightly',
    'lightning', 'matplotlib', 'numpy', 'pandas', 'PIL', 'pyarrow', 'pyogrio', 'pyproj', 'rasterio',
    'requests', 'safetensors', 'scipy', 'shapely', 'sklearn', 'tensorboard', 'timm', 'torch',
    'torchgeo', 'torchmetrics', 'torchvision', 'tqdm', 'urllib3',
]  # fmt: skip

from torchgeo_caco.models import caco_resnet18, caco_resnet50  # noqa: E402, F401
