"""What config.yaml names as `custom_handler`: the presets beside this file, as a LiteLLM provider."""

from pathlib import Path

from litellm_cappy import CappyLLM

handler = CappyLLM.load(Path(__file__).with_name("presets.yaml"))
