// What the kernels share with Python: tensors, and how structures lie in memory. Each kernel exports `const char*
// layout()`, lines of DESCRIBE for all its structures, which structures.py compares with Python's.

#pragma once

#include "simd.h"

#include <cstddef>
#include <initializer_list>
#include <string>

extern "C" {

// A float32 tensor (sequence, token, value); values are next to each other.
struct Rows {
    float* data;
    Int sequence, token;  // strides
    float* row(Int b, Int t) const { return data + b * sequence + t * token; }
};

}

namespace {

struct Field {
    const char* name;
    size_t offset, size;
};

// A line "structure size field:offset:size field:offset:size ...".
inline std::string described(const char* structure, size_t size, std::initializer_list<Field> fields) {
    std::string line = std::string(structure) + " " + std::to_string(size);
    for (const Field& field : fields)
        line += std::string(" ") + field.name + ":" + std::to_string(field.offset) + ":" + std::to_string(field.size);
    return line + "\n";
}

}  // namespace

// One structure: DESCRIBE(Structure, FIELD(first), FIELD(second), ...).
#define DESCRIBE(Structure, ...) \
    [] { using Described = Structure; return described(#Structure, sizeof(Structure), {__VA_ARGS__}); }()
#define FIELD(name) {#name, offsetof(Described, name), sizeof(Described::name)}
