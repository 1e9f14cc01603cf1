/* Networks of the native engine, for programs without Python: read a `.wiring` file, run it.
 *
 * Functions return 0, or another number if they fail; `wirings_error` has the reason. */
#ifndef WIRINGS_H
#define WIRINGS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct wirings_network wirings_network;

/* The reason of the last failure in this thread. */
const char* wirings_error(void);

/* Opens a network: `size` bytes of a `.wiring` file, which may be freed afterwards. They are verified; nothing in them
 * is executed. */
int wirings_open(const void* bytes, size_t size, wirings_network** network);
int wirings_open_file(const char* path, wirings_network** network);
void wirings_close(wirings_network* network);

/* Number of inputs and outputs, and the shape of one, without the number of images: (channels, height, width). */
int wirings_inputs(const wirings_network* network);
int wirings_outputs(const wirings_network* network);
int wirings_input_shape(const wirings_network* network, int input, int64_t shape[3]);
int wirings_output_shape(const wirings_network* network, int output, int64_t shape[3]);

/* Runs `images` images with up to `threads` threads. Inputs and outputs are float32, (images, channels, height,
 * width), each without gaps. Calls from several threads run one after another. */
int wirings_run(wirings_network* network, const float* const* inputs, float* const* outputs, int64_t images,
                int threads);

/* The same for one input of decoded images: bytes (images, height, width, channels), of which the network takes
 * byte * scale[channel] + shift[channel]. */
int wirings_run_bytes(wirings_network* network, const uint8_t* images_data, const float* scale, const float* shift,
                      float* const* outputs, int64_t images, int threads);

/* The same as wirings_run; adds the seconds of each step, including the wait for other threads, to `seconds`. */
int wirings_steps(const wirings_network* network);
int wirings_run_timed(wirings_network* network, const float* const* inputs, float* const* outputs, int64_t images,
                      int threads, double* seconds);

/* to (targets, pixels) = a matrix times sources (nodes, pixels). Row t of the matrix has the weights, and their
 * columns, from starts[t] to starts[t + 1]. */
int wirings_product(const int32_t* starts, const int32_t* columns, const float* weights, const float* sources,
                    float* to, int64_t targets, int64_t pixels, int threads);

/* Name of the kernels that this processor runs: native, avx512, avx2 or baseline. */
const char* wirings_target(void);

#ifdef __cplusplus
}
#endif
#endif
