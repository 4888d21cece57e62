"""How tests compile a program that they read and do not run."""

import jax

# FLOPs and collectives are settled before code is generated: hurry there.
OPTIONS = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
if jax.__version_info__ < (0, 11):
  OPTIONS["xla_cpu_use_fusion_emitters"] = False
