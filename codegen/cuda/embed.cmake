# cmake -DOUT=headers.c -DFILES=a.cuh;b.cuh -P embed.cmake: the files as C arrays, by name.
set(arrays "")
set(rows "")
set(i 0)
string(REPLACE "|" ";" FILES "${FILES}")
foreach(file ${FILES})
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)
  # The name that the compiler takes down: absolute, or it would put the folder that it runs in before.
  string(HEX "#line 1 \"/${name}\"\n" line)
  set(hex "${line}${hex}")
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND arrays "static const char text_${i}[] = {\n${bytes}0};\n")
  string(APPEND rows "    {\"${name}\", text_${i}},\n")
  math(EXPR i "${i} + 1")
endforeach()
file(WRITE ${OUT} "#include \"codegen/cuda/internal.h\"\n\n${arrays}
const cg_cuda_header cg_cuda_headers[] = {\n${rows}    {0, 0},\n};\n")
