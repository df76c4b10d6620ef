// Everything that is compiled once for each instruction set.

#include "cpu_vectors.h"

#include "cpu_kernel.h"

#include "cpu_attention.h"

#include "cpu_branch.h"

#undef INLINE
#undef INLINE_LAMBDA
#undef TARGET
#undef BYTES
