#include "prismaquant/prismaquant.hpp"

prismaquant::quantized_matrix<prismaquant::nvfp4> encode_elsewhere(prismaquant::matrix_view<float const> weights);

prismaquant::quantized_matrix<prismaquant::nvfp4> encode_elsewhere(prismaquant::matrix_view<float const> weights) {
  return prismaquant::encode<prismaquant::nvfp4>(weights);
}
