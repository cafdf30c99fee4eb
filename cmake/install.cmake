# make install: a tree that runs wherever it is put, without this checkout and its .venv. lib/moetron gets the libraries
# of torch and of Debian that the program needs; what every Debian has (glibc, libstdc++) stays the system's.
#   bin/moetron  lib/moetron/*.so*  share/moetron (as in the checkout)  share/doc/moetron
# The wheel (scripts/make_wheel.py) holds the same program beside torch's own wheel: the second place to look.
set_target_properties(moetron PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/moetron:$ORIGIN/../../torch/lib")
# An RPATH, unlike a RUNPATH, holds for what libraries need themselves, too.
target_link_options(moetron PRIVATE -Wl,--disable-new-dtags)
install(TARGETS moetron RUNTIME_DEPENDENCY_SET moetron_libraries DESTINATION bin)
install(RUNTIME_DEPENDENCY_SET moetron_libraries DESTINATION lib/moetron
  PRE_EXCLUDE_REGEXES "^ld-linux" "^lib(c|m|dl|rt|pthread|stdc\\+\\+|gcc_s)\\.so"
  DIRECTORIES ${MOETRON_TORCH_DIR}/lib)
install(DIRECTORY configs examples tools DESTINATION share/moetron USE_SOURCE_PERMISSIONS)
install(PROGRAMS scripts/alpaca_to_openai.py scripts/demo.sh scripts/demo_text.py scripts/demo_tokenizer.py scripts/find_moetron.sh
  DESTINATION share/moetron/scripts)
install(PROGRAMS tests/oracles/checkpoint_oracle.py DESTINATION share/moetron/tests/oracles)
install(FILES README.md LICENSE DESTINATION share/doc/moetron)
install(DIRECTORY docs DESTINATION share/doc/moetron)
