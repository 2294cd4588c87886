"""What happens inside the UNet's attention: key frames, recording, fusion."""
