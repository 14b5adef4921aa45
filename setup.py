"""Packaging: ``configs/`` of the repository is the folder ``torchreid_ptl/configs`` of an installed package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["torchreid_ptl*"]), "torchreid_ptl.configs"],
    package_dir={"torchreid_ptl.configs": "configs"},
)
