"""What pyproject.toml has no words for: `configs/` is installed under another name."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pipeline*", "pretrain*", "finetune*"]), "latemask_configs"],
    package_dir={"latemask_configs": "configs"},
    package_data={"latemask_configs": ["**/*.yaml", "**/*.json"]},
)
