// Links of Flower's tasks to the pages of their jobs, and the search for a job that those pages link to (?job=ID).
(() => {
  const isTasksOf = /^((?:voice, |music, )?jobs? )([\w-]+(?: [\w-]+)*)$/;

  function linkJobs(element) {
    const parts = isTasksOf.exec(element.textContent.trim());
    if (!JOB_PAGE || !parts || element.querySelector("a")) return;
    element.replaceChildren(parts[1]);
    for (const id of parts[2].split(" ")) {
      const link = document.createElement("a");
      link.href = JOB_PAGE + "/job/" + id;
      link.textContent = id;
      link.rel = "noopener";
      link.addEventListener("click", (event) => event.stopPropagation());
      element.append(link, " ");
    }
  }

  const table = document.querySelector("#tasks-table");
  const job = new URLSearchParams(location.search).get("job");
  document.querySelectorAll("#task-page code").forEach(linkJobs);
  if (!table) return;
  $(table).on("draw.dt", () => table.querySelectorAll("tbody td").forEach(linkJobs));
  if (job) $(table).on("init.dt", () => $(table).DataTable().search(job).draw());
})();
