/* A plugin of qemu that counts the instructions which a program executes, and those among them that
 * do nothing on arm64, and prints them at its end. What it needs of qemu-plugin.h, which Debian's
 * qemu does not bring, is declared here. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin;
struct block;
struct instruction;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin, void (*)(plugin, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int operation, void *, uint64_t);
void qemu_plugin_register_atexit_cb(plugin, void (*)(plugin, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
const void *qemu_plugin_insn_data(const struct instruction *);
size_t qemu_plugin_insn_size(const struct instruction *);

enum { ADD = 0 };

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static uint64_t executed, empty;

static int is_empty(const struct instruction *instruction) {
  const uint32_t nop = 0xd503201f;
  return qemu_plugin_insn_size(instruction) == sizeof nop && !memcmp(qemu_plugin_insn_data(instruction), &nop, sizeof nop);
}

/* A block is what qemu translates at once; it has no branches but at its end. */
static void translated(plugin id, struct block *block) {
  (void)id;
  const size_t size = qemu_plugin_tb_n_insns(block);
  uint64_t nops = 0;
  for (size_t i = 0; i < size; i++) {
    nops += is_empty(qemu_plugin_tb_get_insn(block, i));
  }
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &executed, size);
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &empty, nops);
}

static void ended(plugin id, void *data) {
  (void)id, (void)data;
  fprintf(stderr, "\ninstructions: %" PRIu64 ", empty: %" PRIu64 "\n", executed, empty);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin id, const void *about, int count, char **values) {
  (void)about, (void)count, (void)values;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
