// A live patch, as a distribution ships them for the kernel that runs: one function of the kernel gets another body.
// What the guest says in /proc/cmdline tells whether it is in force.
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int patched_cmdline_proc_show(struct seq_file* out, void* unused) {
  seq_puts(out, "this kernel is live-patched\n");
  return 0;
}

static struct klp_func functions[] = {
    {.old_name = "cmdline_proc_show", .new_func = patched_cmdline_proc_show}, {}};
static struct klp_object objects[] = {{.funcs = functions}, {}};
static struct klp_patch patch = {.mod = THIS_MODULE, .objs = objects};

static int __init begin(void) { return klp_enable_patch(&patch); }
static void __exit end(void) {}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("a live patch for tests");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
