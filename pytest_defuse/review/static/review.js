// Keyboard shortcuts: each control names its key in aria-keyshortcuts.
document.documentElement.classList.add("keys");
document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select");
  if (writing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`)?.click();
});
