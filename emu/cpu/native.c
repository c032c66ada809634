/* The engine's native part: optional, and small. native.py loads it and checks that Unicorn fits; engine.py does the same
   without it, in Python, and is the reference.

   traps          system calls and page faults that go to S mode are entered without calling Python
   time           rdtime reads the host's clock, and the CPU looks at it every few blocks and stops at its deadline: neither
                  waits for Python's lock, nor for another thread to wake up
   counted time   instead of that, the CPU counts its blocks, and stops after as many as it was told
   questions      whether to stop is asked at the start of each block, and on x86-64 within it; Unicorn calls a function
   sstatus.SUM    two TLBs for S mode, one for each value; Unicorn has one, and flushes everything at each change
   jumps          the block of code that an indirect jump leads to is found in less time, and more often at once
   translation    short blocks are not optimized
   changed code   a page with translated code stays write-protected in the TLB, so that each write to it is noticed;
                  Unicorn stops to look after the first one
   watchpoints    a debugger's; Unicorn has left out what QEMU does about them, but for the question

   All but the first replace functions of libunicorn, for the whole process, wherever the loader has put their addresses,
   and in its table of CSRs; CPUs that are not ours get the originals. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
#define likely(x) __builtin_expect(!!(x), 1)

/* Words of the CPU state, as in class Reg; HART is a pointer that Unicorn has no use for (QEMUTimer *timer). */
enum { PC = 64, LOAD_RES = 65, BADADDR = 68, PRIV = 74, MSTATUS = 78, STVAL = 85, MEDELEG = 87, STVEC = 88, SEPC = 89, SCAUSE = 90, HART = 194 };
enum { U = 0, S = 1, M = 3 };                                                              /* privilege modes */
enum { SIE = 1 << 1, SPIE = 1 << 5, SPP = 1 << 8, FS = 3 << 13, MPRV = 1 << 17, SUM = 1 << 18 }; /* mstatus */
enum { ECALL = 8, FETCH_PAGE_FAULT = 12, LOAD_PAGE_FAULT = 13, STORE_PAGE_FAULT = 15 };    /* scause */
enum { FETCH = 2, EXECUTE = 4 };                                                           /* MMU_INST_FETCH, PAGE_EXEC */
enum { SSTATUS_CSR = 0x100, MSTATUS_CSR = 0x300, TIME_CSR = 0xC01, NS_PER_TICK = 100, PS_PER_NS = 1000 };
enum { NOW, BLOCKS_THEN, ORIGIN, GIVEN_UP, SLOWEST_PS, MOST_BEHIND };                     /* HostClock.shared */
enum { JUMPED, PS_PER_BLOCK };                                                             /* WarpClock.shared */
enum { BLOCKS = 256 };   /* between two looks at the clock, which take as long as ten blocks; 2 to 4 us */
enum { CPU = 440 };      /* uc_struct: CPUState * */
enum { EXIT = -16, COUNT = -8 }; /* from the CPU state: IcountDecr, negative when a stop was asked for; and padding, where blocks are counted: up to 0, then one is looked at */
enum { PAGE = 4096, NOTDIRTY = 1 << 10, VICTIMS = 8, MODES = 4, OTHER_S = 2 };             /* nobody has mode 2 */

struct entry { u64 read, write, code, physical, to_host, unused[3]; };                     /* CPUTLBEntry */
struct fast { u64 mask; struct entry *table; };                                            /* CPUTLBDescFast */
struct slow { u64 large[2], window[2], used, next_victim; struct entry victims[VICTIMS]; u64 io[VICTIMS][2]; void *ios; }; /* CPUTLBDesc */
struct tlb { uint16_t dirty; u64 counts[3]; struct slow slow[MODES]; struct fast fast[MODES]; };  /* CPUTLB */

/* TranslationBlock. `flags` are the privilege mode and mstatus.FS; `compiled` (cflags) is ORDINARY unless the block was
   invalidated or has an instruction limit of its own; `pages` are offsets in RAM, the second NO_PAGE if it lies in one. */
struct block { u64 pc, cs_base; uint32_t flags, sizes, compiled, trace; void *code; u64 code_size, original, next[2], pages[2]; };
static const uint32_t ORDINARY = 0xFF000000;
static const u64 NO_PAGE = -1;
enum { INTERRUPT_REQUEST = 28, HARD = 2 };                                                 /* CPUState, and a bit of it */
enum { JUMPS = 1 << 13 };                                                                  /* in hart->blocks */

typedef void trap_callback(void *uc, uint32_t cause, void *user);

/* One engine; class _Hart of native.py is the same. */
struct hart {
  u64 *state;
  struct tlb *tlb;
  void *uc, *cpu;
  u64 ram, ram_size;       /* where the guest's RAM is in this process */
  u64 ram_base;            /* and for the guest */
  uint8_t *has_code;       /* a byte for each page of RAM */
  trap_callback *python;   /* enters all other traps, and all of them while only_python */
  u64 only_python, traps;
  u64 last_write, ascending;
  int64_t *clock;          /* or 0: Python knows the time */
  int64_t deadline;        /* in guest time, ns */
  u64 tells_time, time_reads; /* whether rdtime reads that clock; how often it has */
  u64 counts;              /* whether the word at COUNT is how many blocks were executed, less: */
  int64_t limit;           /* how many there may be */
  int64_t *work;           /* or 0: what WarpClock shares */
  u64 flushes;             /* of the TLBs, while there is that */
  u64 access;              /* why the TLB is being filled */
  struct block **jump_cache, **blocks; /* CPUState's tb_jmp_cache; and JUMPS more */
  struct watch *watches;   /* what a debugger watches */
  u64 watch_count, watching; /* how many; whether it does just now */
  u64 seen, seen_kind, seen_block, seen_count; /* the access that was about to come, +1; its block's pc, and how many instructions that has */
};

struct watch { u64 first, last, kinds; }; /* addresses; READ, WRITE */

static u64 env_offset; /* in CPUState: the CPU state */
static void (*reset_dirty)(void *cpu, u64 host, u64 size), (*set_dirty)(void *cpu, u64 address);
static void (*reset_dirty_virtual)(void *cpu, u64 address, u64 size), (*drop_code)(void *uc, u64 start, u64 end);
static void *(*lookup)(u64 *state);
static struct block *(*find_block)(void *context, u64 code);
static uint8_t (*restore_state)(void *cpu, u64 code, uint8_t will_exit);
static __attribute__((noreturn)) void (*leave)(void *cpu);
static void (*drop_blocks)(void *cpu);
static int (*gen_code)(void *context, struct block *block);
static void (*optimize)(void *context);
static int (*fill)(void *cpu, u64 address, int size, int access, int mode, int probe, u64 caller);
static void (*set_page)(void *cpu, u64 page, u64 physical, int prot, int mode, u64 size);
static void (*check_exit)(void *uc, uint32_t in_delay_slot), (*stop)(void *uc);
static void (*flush)(void *cpu, uint16_t modes), (*flush_page)(void *cpu, u64 address, uint16_t modes);
static u64 (*load_pte)(void *uc, void *space, u64 address, uint32_t attributes, uint32_t *failed);
struct csr {
  void *predicate;
  int (*read)(u64 *state, int number, u64 *value), (*write)(u64 *state, int number, u64 value);
  void *both;
};
static struct csr sstatus, mstatus, time_csr, counter; /* the latter is what Unicorn has for each of: */
static const int counters[] = {0xB00, 0xB02, 0xC00, 0xC02}; /* mcycle, minstret, cycle, instret */

static struct hart *of_cpu(void *cpu) { return env_offset ? ((struct hart **)((char *)cpu + env_offset))[HART] : 0; }
static struct hart *of_uc(void *uc) { return of_cpu(*(void **)((char *)uc + CPU)); }

/* ---- traps (Privileged Architecture 3.1.6, 4.1) */

void native_trap(void *uc, uint32_t cause, void *user) {
  struct hart *hart = user;
  u64 *s = hart->state, mode = s[PRIV], status = s[MSTATUS], pc = s[PC] - 4, handler = s[STVEC] & ~3ull;
  int simple = (cause == ECALL && mode == U) || cause == FETCH_PAGE_FAULT || cause == LOAD_PAGE_FAULT || cause == STORE_PAGE_FAULT;
  if (!simple || mode == M || !(s[MEDELEG] >> cause & 1) || handler == pc || hart->only_python) {
    hart->python(uc, cause, 0);
    return;
  }
  s[SEPC] = pc, s[SCAUSE] = cause, s[STVAL] = cause == ECALL ? 0 : s[BADADDR];
  s[MSTATUS] = (status & ~(u64)(SPP | SPIE | SIE)) | mode << 8 | (status & SIE) << 4;
  s[PRIV] = S, s[LOAD_RES] = ~0ull, s[PC] = handler;
  hart->traps++;
}

/* ---- SUM: what S mode may reach depends on it, so each value has a TLB, and a change exchanges them */

static void exchange_tlbs(struct tlb *t) {
  struct slow slow = t->slow[S];
  struct fast fast = t->fast[S];
  t->slow[S] = t->slow[OTHER_S], t->slow[OTHER_S] = slow;
  t->fast[S] = t->fast[OTHER_S], t->fast[OTHER_S] = fast;
  if ((t->dirty >> S ^ t->dirty >> OTHER_S) & 1) t->dirty ^= 1 << S | 1 << OTHER_S;
}

static int write_status(u64 *state, int number, u64 value) {
  struct hart *hart = (struct hart *)state[HART];
  const struct csr *original = number == SSTATUS_CSR ? &sstatus : &mstatus;
  u64 before = state[MSTATUS], change = (value ^ before) & SUM;
  if (!hart) return original->write(state, number, value);
  if ((before | value) & MPRV) change = 0; /* M mode translates by SUM, too: Unicorn may flush everything */
  int refused = original->write(state, number, value ^ change);
  if (!refused) state[MSTATUS] ^= change;
  if ((state[MSTATUS] ^ before) & SUM) exchange_tlbs(hart->tlb);
  return refused;
}

/* ---- time: that of WarpClock is the work done; that of HostClock is real, but never more than the guest could work in it */

static int64_t *blocks_left(u64 *state) { return (int64_t *)((char *)state + COUNT); } /* as a negative number */
static int64_t blocks(struct hart *hart) { return hart->limit + *blocks_left(hart->state); }

/* HostClock.settle(). */
static int settle(struct hart *hart, int64_t *ns) {
  int64_t *clock = hart->clock;
  struct timespec now;
  if (!clock || clock_gettime(CLOCK_MONOTONIC, &now)) return 0;
  int64_t real = now.tv_sec * 1000000000ll + now.tv_nsec - clock[ORIGIN], then = blocks(hart);
  int64_t most = clock[NOW] + (then - clock[BLOCKS_THEN]) * clock[SLOWEST_PS] / PS_PER_NS;
  *ns = real < most ? real : most;
  if (*ns < clock[NOW]) *ns = clock[NOW];
  int64_t excess = real - *ns - clock[MOST_BEHIND];
  if (excess > 0) clock[ORIGIN] += excess, clock[GIVEN_UP] += excess;
  clock[BLOCKS_THEN] = then, clock[NOW] = *ns;
  return 1;
}

static int64_t work_time(struct hart *hart) {
  return hart->work[JUMPED] + blocks(hart) * hart->work[PS_PER_BLOCK] / PS_PER_NS;
}

static int read_time(u64 *state, int number, u64 *value) {
  struct hart *hart = (struct hart *)state[HART];
  int64_t ns;
  if (!hart || !hart->tells_time) return time_csr.read(state, number, value);
  if (hart->work) ns = work_time(hart);
  else if (!settle(hart, &ns)) return time_csr.read(state, number, value);
  *value = ns / NS_PER_TICK;
  hart->time_reads++;
  return 0;
}

/* Unicorn's cycles and instructions are the host's; where guest time is counted, so are they: as at 1 GHz. */
static int read_counter(u64 *state, int number, u64 *value) {
  struct hart *hart = (struct hart *)state[HART];
  if (!hart || !hart->work) return counter.read(state, number, value);
  *value = work_time(hart);
  return 0;
}

/* A block is not to begin, or not before the clock was looked at. The original needs its caller's address, so it is jumped to. */
static __attribute__((noinline)) void on_exit_request(void *uc, uint32_t in_delay_slot, u64 *state) {
  struct hart *hart = (struct hart *)state[HART];
  int64_t *left = blocks_left(state), ns;
  if (hart && hart->counts) {
    if (*left > 0) stop(uc);
    --*left; /* it doesn't begin now: somebody asked for a stop, if not we */
  } else {
    if (hart) hart->limit += *left + BLOCKS; /* where there is a clock, a block more or less at a stop does not matter */
    *left = -BLOCKS;
    if (hart && hart->clock && (!settle(hart, &ns) || ns >= hart->deadline)) stop(uc);
  }
  check_exit(uc, in_delay_slot);
}

/* Each block begins with this question, whether to stop. */
static void on_check_exit(void *uc, uint32_t in_delay_slot) {
  if (!env_offset) { check_exit(uc, in_delay_slot); return; } /* no CPU is ours */
  u64 *state = (u64 *)(*(char **)((char *)uc + CPU) + env_offset);
  if (likely(++*blocks_left(state) <= 0) && likely(*(int32_t *)((char *)state + EXIT) >= 0)) return;
  on_exit_request(uc, in_delay_slot, state);
}

/* That question is a fifth of the time of a short block. So where it can, a block asks it itself:

       movabs $uc, %rdi              incq COUNT(%rbp)       %rbp is the CPU state
       xor %esi, %esi                jg 1f
       call on_check_exit            cmpl $0, EXIT(%rbp)
                                     jge 2f
                                  1: call answer
                                  2:                        as long as what was there, and it returns to the same place */
#ifdef __x86_64__
enum { UC = 2, ZERO = 10, CALL = 12, NEAR = 17, FAR = 18, QUESTION = FAR };

static __attribute__((used)) void on_question(u64 *state) { on_exit_request(((struct hart *)state[HART])->uc, 0, state); }
static __attribute__((naked)) void answer(void) { __asm__("mov %rbp, %rdi\n\tjmp on_question"); }

static void ask_in_block(uint8_t *code) {
  static const uint8_t movabs[] = {0x48, 0xBF}, xor[] = {0x33, 0xF6}, near_call = 0xE8, far_call[] = {0xFF, 0x15};
  uint8_t asks[CALL] = {0x48, 0xFF, 0x45, (uint8_t)COUNT, 0x7F, 6, 0x83, 0x7D, (uint8_t)EXIT, 0, 0x7D, NEAR - CALL};
  void *uc;
  memcpy(&uc, code + UC, sizeof uc);
  if (memcmp(code, movabs, sizeof movabs) || memcmp(code + ZERO, xor, sizeof xor)) return;
  if (code[CALL] == near_call) {
    int64_t theirs = (u64)on_check_exit - (u64)code - NEAR, ours = (u64)answer - (u64)code - NEAR;
    int32_t called, call = ours;
    memcpy(&called, code + NEAR - sizeof called, sizeof called);
    if (called != theirs || call != ours || !of_uc(uc)) return;
    memcpy(code + NEAR - sizeof call, &call, sizeof call);
  } else if (!memcmp(code + CALL, far_call, sizeof far_call)) { /* by an address behind the block */
    int32_t distance;
    memcpy(&distance, code + FAR - sizeof distance, sizeof distance);
    u64 called, ours = (u64)answer;
    memcpy(&called, code + FAR + distance, sizeof called);
    if (called != (u64)on_check_exit || !of_uc(uc)) return;
    memcpy(code + FAR + distance, &ours, sizeof ours);
    asks[CALL - 1] = FAR - CALL;
  } else return;
  memcpy(code, asks, sizeof asks);
}
#else
enum { QUESTION = 18 };
static void ask_in_block(uint8_t *code) { (void)code; }
#endif

/* Looking for what can be computed once is a sixth of translating a block, and pays in long ones: a hash function's, not a
   kernel's that boots. Blocks of less than LONG instructions go without: md5sum is as fast, and booting takes 6 % less. */
enum { LONG = 12 };
static __thread int is_long;
static void on_optimize(void *context) { if (is_long) optimize(context); }

static int on_gen_code(void *context, struct block *block) {
  is_long = block->sizes >> 16 >= LONG;
  int size = gen_code(context, block);
  if (size >= QUESTION) ask_in_block(block->code);
  return size;
}

/* Unicorn makes a TLB smaller when little of it was in use for 100 ms. Where time is counted, that is so many flushes: each
   clears all of it, and 100 ms of guest time would be thousands. */
enum { FLUSH_NS = 400000 };
static __thread struct hart *flushing;

static int on_gettimeofday(struct timeval *now, void *zone) {
  if (!flushing) return gettimeofday(now, zone);
  int64_t ns = flushing->flushes * FLUSH_NS;
  now->tv_sec = ns / 1000000000, now->tv_usec = ns / 1000 % 1000000;
  return 0;
}

static void begin_flush(struct hart *hart) {
  if (hart && hart->work) flushing = hart, hart->flushes++;
}

static void on_flush(void *cpu, uint16_t modes) {
  begin_flush(of_cpu(cpu));
  flush(cpu, modes);
  flushing = 0;
}

static void on_flush_page(void *cpu, u64 address, uint16_t modes) {
  struct hart *hart = of_cpu(cpu);
  begin_flush(hart);
  flush_page(cpu, address, modes);
  for (int mode = 0; hart && mode < MODES; mode++)
    if ((int64_t)hart->tlb->slow[mode].used < 0) hart->tlb->slow[mode].used = 0;
  flushing = 0;
}

/* ---- changed code: no TLB entry of a page with code is ever dirty, as QEMU has it */

static int has_code(struct hart *hart, u64 host) {
  u64 offset = host - hart->ram;
  return offset < hart->ram_size && hart->has_code[offset / PAGE];
}

/* A page gets its first block; `offset` is in RAM, the only memory there is. */
static void on_protect(void *uc, u64 offset) {
  struct hart *hart = of_uc(uc);
  if (!hart || offset >= hart->ram_size) return;
  hart->has_code[offset / PAGE] = 1;
  reset_dirty(hart->cpu, hart->ram + (offset & -PAGE), PAGE);
}

/* The last block of a page is gone. */
static void on_unprotect(void *uc, u64 offset) {
  struct hart *hart = of_uc(uc);
  if (hart && offset < hart->ram_size) hart->has_code[offset / PAGE] = 0;
}

/* Sixteen writes in a row, upwards: the page is filled anew, so drop all of its code, not block by block. */
static void on_write_to_code(struct hart *hart, u64 address, u64 host) {
  hart->ascending = address - hart->last_write - 1 < 64 ? hart->ascending + 1 : 0;
  hart->last_write = address;
  if (hart->ascending < 16) return;
  u64 page = (host - hart->ram) & -PAGE;
  drop_code(hart->uc, page, page + PAGE);
  hart->ascending = 0;
}

static struct entry *entry_of(struct hart *hart, int mode, u64 page) {
  struct fast *fast = &hart->tlb->fast[mode];
  return (struct entry *)((char *)fast->table + (page / PAGE * sizeof(struct entry) & fast->mask));
}

static int on_fill(void *cpu, u64 address, int size, int access, int mode, int probe, u64 caller) {
  struct hart *hart = of_cpu(cpu);
  if (hart) hart->access = access;
  return fill(cpu, address, size, access, mode, probe, caller);
}

/* A page is entered into the TLB. Unicorn takes it for clean, and looks for code at the first write to it; and lets S mode
   execute a user's page that it may read by SUM: its entry stays here for longer, so that is put right. And so is the number
   of entries in use: Unicorn subtracts a victim twice, and makes a TLB of less than none twice as large at each flush. */
static void on_set_page(void *cpu, u64 page, u64 physical, int prot, int mode, u64 size) {
  struct hart *hart = of_cpu(cpu);
  if (hart && mode == S && hart->state[MSTATUS] & SUM && hart->access != FETCH) prot &= ~EXECUTE;
  struct entry *entry = hart ? entry_of(hart, mode, page) : 0;
  u64 used = entry ? hart->tlb->slow[mode].used + (~(entry->read & entry->write & entry->code) == 0) : 0;
  set_page(cpu, page, physical, prot, mode, size);
  if (entry) hart->tlb->slow[mode].used = used;
  if (entry && entry->write == (page | NOTDIRTY) && !has_code(hart, page + entry->to_host)) entry->write = page;
}

/* A page was written to, and code looked for in it: if there is none, writes need not be seen any more. */
static void on_set_dirty(void *cpu, u64 address) {
  struct hart *hart = of_cpu(cpu);
  if (!hart) { set_dirty(cpu, address); return; }
  u64 page = address & -PAGE, host = 0;
  for (int mode = 0; mode < MODES; mode++) {
    struct entry *entry = entry_of(hart, mode, page);
    if (entry->write != (page | NOTDIRTY)) continue;
    if (has_code(hart, page + entry->to_host)) host = page + entry->to_host;
    else entry->write = page;
  }
  if (host) on_write_to_code(hart, address, host);
}

/* What Unicorn does instead, for each block that it translates; it looks through all TLBs for that. */
static void on_reset_dirty_virtual(void *cpu, u64 address, u64 size) {
  if (!of_cpu(cpu)) reset_dirty_virtual(cpu, address, size);
}

/* The host has written to RAM. */
void native_written(struct hart *hart, u64 offset, u64 size) {
  for (u64 page = offset & -PAGE; page < offset + size && page < hart->ram_size; page += PAGE)
    if (hart->has_code[page / PAGE]) drop_code(hart->uc, page < offset ? offset : page, page + PAGE < offset + size ? page + PAGE : offset + size);
}

/* So it has in many places: from where, up to where. */
void native_changed(struct hart *hart, const u64 (*ranges)[2], u64 count) {
  for (u64 i = 0; i < count; i++) native_written(hart, ranges[i][0], ranges[i][1] - ranges[i][0]);
}

/* ---- indirect jumps */

static int fits(const struct block *block, u64 pc, uint32_t flags) {
  return block && block->pc == pc && block->flags == flags && block->compiled == ORDINARY;
}

/* Return the code of the block at the pc. Unicorn's cache of 4,096 blocks is cleared at each flush of the TLB, and in a
   page with many blocks they displace each other: its hash takes six bits of the page and six of the rest. A block that is
   missing there may be in our cache, which outlives a flush; it is the right one if the TLB has the page, executable, and
   at the address that the block was translated from. Otherwise Unicorn walks its hash table, or translates. */
static void *on_lookup(u64 *state) {
  struct hart *hart = (struct hart *)state[HART];
  if (!hart) return lookup(state);
  u64 pc = state[PC], page = pc & -PAGE, mode = state[PRIV], hash = pc ^ pc >> 6;
  uint32_t flags = mode | (state[MSTATUS] & FS);
  struct block **cached = &hart->jump_cache[(hash >> 6 & 0xFC0) | (hash & 0x3F)], **ours = &hart->blocks[(pc >> 1 ^ pc >> 14) % JUMPS];
  if (likely(fits(*cached, pc, flags))) return (*cached)->code;
  struct entry *entry = entry_of(hart, mode, page);
  if (fits(*ours, pc, flags) && (*ours)->pages[1] == NO_PAGE && entry->code == page && (*ours)->pages[0] == page + entry->to_host - hart->ram)
    return (*cached ? *ours : (*cached = *ours))->code;
  void *code = lookup(state);
  if (fits(*cached, pc, flags)) *ours = *cached;
  return code;
}

/* The memory of all blocks is about to be used again, and no page has code any more. */
static void on_drop_blocks(void *cpu) {
  struct hart *hart = of_cpu(cpu);
  if (hart) memset(hart->blocks, 0, JUMPS * sizeof *hart->blocks), memset(hart->has_code, 0, hart->ram_size / PAGE);
  drop_blocks(cpu);
}

/* ---- page tables: a short way to RAM */

static u64 on_load_pte(void *uc, void *space, u64 address, uint32_t attributes, uint32_t *failed) {
  struct hart *hart = of_uc(uc);
  u64 offset = hart ? address - hart->ram_base : ~0ull;
  if (!hart || offset > hart->ram_size - 8) return load_pte(uc, space, address, attributes, failed);
  *failed = 0;
  return *(u64 *)(hart->ram + offset);
}

/* ---- watchpoints: a page with one has a mark in the TLB, and its accesses are asked about */

static int is_in(const struct watch *watch, u64 address, u64 size) {
  return watch->first <= address + size - 1 && address <= watch->last;
}

static int on_watched(void *cpu, u64 address, u64 size) {
  struct hart *hart = of_cpu(cpu);
  int kinds = 0;
  for (u64 i = 0; hart && i < hart->watch_count; i++)
    if (is_in(&hart->watches[i], address, size)) kinds |= hart->watches[i].kinds;
  return kinds;
}

static __thread struct block *found;
static struct block *on_find_block(void *context, u64 code) { return found = find_block(context, code); }

/* An access is about to come. If it is to be seen, leave the block before it, as if nothing had happened of that instruction. */
static void on_access(void *cpu, u64 address, u64 size, uint32_t attributes, int kind, u64 caller) {
  (void)attributes;
  struct hart *hart = of_cpu(cpu);
  if (!hart || !hart->watching || !caller) return;
  for (u64 i = 0; i < hart->watch_count; i++) {
    struct watch *watch = &hart->watches[i];
    if (!(watch->kinds & kind) || !is_in(watch, address, size)) continue;
    found = 0;
    if (!restore_state(cpu, caller, 1) || !found) return;
    hart->seen = (address > watch->first ? address : watch->first) + 1;
    hart->seen_kind = kind, hart->seen_block = found->pc, hart->seen_count = found->sizes >> 16;
    *(uint32_t *)((char *)cpu + INTERRUPT_REQUEST) &= ~HARD; /* none is entered in the middle of a block */
    stop(hart->uc);
    leave(cpu);
  }
}

/* ---- getting in between */

/* One of libunicorn's: what comes instead, if anything; where its address is to be kept, if anywhere; its address; whether it was replaced. */
struct function { const char *name; void *ours, *keep, *original; int found; };

/* Put `ours` wherever the loader has put the address of one of the `functions`. */
static void replace(struct link_map *map, struct function *functions, size_t count) {
  const ElfW(Sym) *symbols = 0;
  const char *names = 0;
  u64 tables[2] = {0, 0}, sizes[2] = {0, 0}, pages = sysconf(_SC_PAGESIZE);
  for (const ElfW(Dyn) *d = map->l_ld; d->d_tag; d++) {
    u64 at = d->d_un.d_ptr < map->l_addr ? d->d_un.d_ptr + map->l_addr : d->d_un.d_ptr;
    if (d->d_tag == DT_SYMTAB) symbols = (void *)at;
    if (d->d_tag == DT_STRTAB) names = (void *)at;
    if (d->d_tag == DT_RELA) tables[0] = at;
    if (d->d_tag == DT_RELASZ) sizes[0] = d->d_un.d_val;
    if (d->d_tag == DT_JMPREL) tables[1] = at;
    if (d->d_tag == DT_PLTRELSZ) sizes[1] = d->d_un.d_val;
  }
  for (int i = 0; i < 2; i++)
    for (const ElfW(Rela) *word = (void *)tables[i], *end = word + sizes[i] / sizeof *word; word < end; word++) {
      const ElfW(Sym) *symbol = &symbols[word->r_info >> 32];
      if (symbol == symbols) continue; /* most have none */
      void *address = symbol->st_shndx ? (void *)(map->l_addr + symbol->st_value) : 0;
      for (size_t f = 0; f < count; f++) {
        if (!functions[f].ours || (address ? address != functions[f].original : strcmp(names + symbol->st_name, functions[f].name))) continue;
        u64 at = map->l_addr + word->r_offset;
        if (mprotect((void *)(at & -pages), pages, PROT_READ | PROT_WRITE)) return;
        *(void **)at = functions[f].ours;
        functions[f].found = 1;
        break;
      }
    }
}

/* Which text this is: native.py must know its structure. */
uint32_t native_built_from(void) { return BUILT_FROM; }

/* The same for all CPUs, and known when there is one. */
void native_layout(u64 env) { env_offset = env; }

/* Once in a process, before there is a CPU: 0, or the name of what libunicorn (a handle of dlopen) does not have. */
const char *native_install(void *unicorn) {
  static struct function functions[] = {
      {"tlb_protect_code_riscv64", on_protect}, {"tlb_unprotect_code_riscv64", on_unprotect},
      {"tlb_set_dirty_riscv64", on_set_dirty, &set_dirty}, {"tlb_reset_dirty_by_vaddr_riscv64", on_reset_dirty_virtual, &reset_dirty_virtual},
      {"tlb_set_page_riscv64", on_set_page, &set_page}, {"address_space_ldq_riscv64", on_load_pte, &load_pte},
      {"tlb_flush_by_mmuidx_riscv64", on_flush, &flush}, {"tlb_flush_page_by_mmuidx_riscv64", on_flush_page, &flush_page},
      {"riscv_cpu_tlb_fill_riscv64", on_fill, &fill}, {"helper_check_exit_request_riscv64", on_check_exit, &check_exit}, {"uc_emu_stop", 0, &stop},
      {"helper_lookup_tb_ptr_riscv64", on_lookup, &lookup}, {"tb_flush_riscv64", on_drop_blocks, &drop_blocks},
      {"tcg_gen_code_riscv64", on_gen_code, &gen_code}, {"tcg_optimize_riscv64", on_optimize, &optimize}, {"gettimeofday", on_gettimeofday},
      {"cpu_watchpoint_address_matches_riscv64", on_watched}, {"cpu_check_watchpoint_riscv64", on_access},
      {"tcg_tb_lookup_riscv64", on_find_block, &find_block}, {"cpu_restore_state_riscv64", 0, &restore_state},
      {"cpu_loop_exit_noexc_riscv64", 0, (void *)&leave},
      {"tlb_reset_dirty_riscv64", 0, &reset_dirty}, {"tb_invalidate_phys_range_riscv64", 0, &drop_code}};
  enum { FUNCTIONS = sizeof functions / sizeof *functions };
  const char *const get_name = "riscv_get_csr_ops_riscv64", *const set_name = "riscv_set_csr_ops_riscv64";
  void (*get_csr)(int, struct csr *) = (void (*)(int, struct csr *))dlsym(unicorn, get_name);
  void (*set_csr)(int, struct csr *) = (void (*)(int, struct csr *))dlsym(unicorn, set_name);
  struct link_map *map;
  if (!get_csr || !set_csr || dlinfo(unicorn, RTLD_DI_LINKMAP, &map)) return get_name;
  for (struct function *f = functions; f < functions + FUNCTIONS; f++) {
    f->original = dlsym(unicorn, f->name);
    if (!f->original) return f->name;
    if (f->keep) *(void **)f->keep = f->original;
  }
  replace(map, functions, FUNCTIONS);
  for (int i = 0; i < FUNCTIONS; i++)
    if (functions[i].ours && !functions[i].found) return functions[i].name;
  get_csr(SSTATUS_CSR, &sstatus), get_csr(MSTATUS_CSR, &mstatus), get_csr(TIME_CSR, &time_csr);
  struct csr ours = sstatus;
  ours.write = write_status, set_csr(SSTATUS_CSR, &ours);
  ours = mstatus, ours.write = write_status, set_csr(MSTATUS_CSR, &ours);
  ours = time_csr, ours.read = read_time, set_csr(TIME_CSR, &ours);
  for (int i = 0; i < 4; i++) get_csr(counters[i], &counter), ours = counter, ours.read = read_counter, set_csr(counters[i], &ours);
  return 0;
}
