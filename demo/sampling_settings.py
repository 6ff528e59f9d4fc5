"""How the demo's clips are sampled, wherever they are.  Chosen with seeds that the direction test does not use."""

SAMPLER, SCHEDULER = "dpmpp_2m", "karras"
STEPS, CFG = 20, 5.0
