"""What happens inside the network's attention: key frames, recording, fusion."""
