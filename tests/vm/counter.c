// A plugin for QEMU's emulation that counts a server's instructions: the processor time of a server
// without the time of this machine. For scenarios with `counts=yes`, see guest/counting.sh.
//
// The instructions of a processor between two switches of threads are a stretch. A stretch is the
// server's if an address of the server ran in the stretch: of the server's own program, or of a
// kernel thread's loop. So system calls and interrupts count for the thread that was running, as in
// the kernel's account of processor time. Only the ticks of the clock are left out, up to the return
// from their interrupt: the slower the emulation, the more ticks for a URB.
//
//   -plugin counter.so,directory=DIRECTORY
//
// The guest writes the file DIRECTORY/N.go, N = 0, 1, ...: lines "FIRST BEHIND KIND" with addresses
// in hexadecimal, with the kinds of `enum kind`. The plugin then writes
// DIRECTORY/N.out: "lost N" for blocks that did not fit into their stretch, then for each translated
// block of instructions its address, its length in instructions, and how often the block has run in
// stretches of servers so far.
//
// The functions are those of version 1 of QEMU's plugin interface (docs/devel/tcg-plugins.rst of
// QEMU 7.2, the QEMU of Debian 12), whose header Debian does not package.

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define PROCESSORS 8
#define RANGES 64
// Blocks of a stretch, without repetitions: a time slice of 4 ms has some 400,000 under emulation.
#define STRETCH 2000000

struct qemu_plugin_tb;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *),
                                          int registers, void *);

EXPORTED int qemu_plugin_version = 1;

enum kind {
  // The switch of threads, begun.
  SWITCH = 0,
  // The server itself.
  SERVER = 1,
  // A tick of the clock, begun; and the return from any interrupt.
  TICK = 2,
  RETURN = 3,
  OTHER
};

struct block {
  uint64_t address, instructions, runs;
  // The kind, and the number of orders when that was looked for.
  enum kind kind;
  unsigned orders;
  struct block *next;
};

// A block that ran, and how often in succession: a string instruction is a block for each step.
struct entry {
  struct block *block;
  uint64_t times;
};

static struct stretch {
  struct entry *entries;
  size_t length, lost;
  bool is_servers, is_ticking;
} stretches[PROCESSORS];

static struct range {
  uint64_t first, behind;
  unsigned kind;
} ranges[RANGES];

static const char *directory;
static struct block *blocks;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static size_t range_count, lost;
static volatile unsigned orders = 1;

static enum kind kind_of(uint64_t address) {
  for (size_t i = 0; i < range_count; i++)
    if (address >= ranges[i].first && address < ranges[i].behind) return ranges[i].kind;
  return OTHER;
}

static void end_stretch(struct stretch *stretch) {
  if (stretch->is_servers) {
    for (size_t i = 0; i < stretch->length; i++)
      stretch->entries[i].block->runs += stretch->entries[i].times;
    lost += stretch->lost;
  }
  stretch->length = stretch->lost = 0;
  stretch->is_servers = stretch->is_ticking = false;
}

static void run(unsigned processor, void *data) {
  struct block *block = data;
  struct stretch *stretch = &stretches[processor % PROCESSORS];
  if (block->orders != orders) {
    block->kind = kind_of(block->address);
    block->orders = orders;
  }
  if (block->kind == SWITCH)
    end_stretch(stretch);
  else if (block->kind == SERVER)
    stretch->is_servers = true;
  else if (block->kind == TICK)
    stretch->is_ticking = true;
  else if (block->kind == RETURN)
    stretch->is_ticking = false;
  if (stretch->is_ticking) return;
  if (stretch->length && stretch->entries[stretch->length - 1].block == block)
    stretch->entries[stretch->length - 1].times++;
  else if (stretch->length < STRETCH)
    stretch->entries[stretch->length++] = (struct entry){block, 1};
  else
    stretch->lost++;
}

static void translated(uint64_t plugin, struct qemu_plugin_tb *tb) {
  struct block *block = calloc(1, sizeof *block);
  if (!block) abort();
  block->address = qemu_plugin_tb_vaddr(tb);
  block->instructions = qemu_plugin_tb_n_insns(tb);
  pthread_mutex_lock(&blocks_lock);
  block->next = blocks;
  blocks = block;
  pthread_mutex_unlock(&blocks_lock);
  qemu_plugin_register_vcpu_tb_exec_cb(tb, run, 0, block);
}

static void take_ranges(FILE *file) {
  size_t count = 0;
  struct range range;
  while (count < RANGES &&
         fscanf(file, "%lx %lx %u", &range.first, &range.behind, &range.kind) == 3)
    ranges[count++] = range;
  range_count = count;
  orders++;
}

static void write_runs(FILE *file) {
  pthread_mutex_lock(&blocks_lock);
  struct block *newest = blocks;
  pthread_mutex_unlock(&blocks_lock);
  fprintf(file, "lost %zu\n", lost);
  for (struct block *block = newest; block; block = block->next)
    if (block->runs)
      fprintf(file, "%lx %lu %lu\n", block->address, block->instructions, block->runs);
}

// A guest's order is looked for each twentieth of a second. The output has its name when whole.
static void *follow_orders(void *unused) {
  char name[4096], whole[4096];
  for (unsigned order = 0;; usleep(50000)) {
    snprintf(name, sizeof name, "%s/%u.go", directory, order);
    FILE *file = fopen(name, "r");
    if (!file) continue;
    take_ranges(file);
    fclose(file);
    snprintf(name, sizeof name, "%s/%u.part", directory, order);
    snprintf(whole, sizeof whole, "%s/%u.out", directory, order);
    file = fopen(name, "w");
    if (!file) abort();
    write_runs(file);
    fclose(file);
    rename(name, whole);
    order++;
  }
  return unused;
}

EXPORTED int qemu_plugin_install(uint64_t plugin, const void *info, int count, char **arguments) {
  const char *option = "directory=";
  if (count != 1 || strncmp(arguments[0], option, strlen(option))) return -1;
  directory = strdup(arguments[0] + strlen(option));
  for (int i = 0; i < PROCESSORS; i++) {
    stretches[i].entries = malloc(STRETCH * sizeof *stretches[i].entries);
    if (!stretches[i].entries) return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
  pthread_t thread;
  return pthread_create(&thread, NULL, follow_orders, NULL);
}
