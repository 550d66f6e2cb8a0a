// Renews the main part of a live page every two seconds while it is looked at.
// It waits while something in it is in use, and while the page is hidden.
"use strict";
(() => {
	const every = 2000, later = 10000, read = 6000;
	const status = document.getElementById("live");
	const main = () => document.querySelector("main");
	if (!main().hasAttribute("data-live")) return;

	let on = true, timer;
	const button = document.createElement("button");
	button.type = "button";
	button.onclick = () => { on = !on; tell(); wait(0); };
	status.append(button);
	const tell = (trouble) => {
		button.textContent = trouble || (on ? "Live" : "Stopped");
		button.className = trouble ? "trouble" : on ? "on" : "";
		button.title = on ? "Stop renewing this page" : "Renew this page every two seconds";
	};
	const wait = (time) => { clearTimeout(timer); timer = setTimeout(renew, time); };
	const busy = () => {
		const selection = getSelection(), focus = document.activeElement;
		return main().querySelector("details[open]") ||
			main().contains(focus) && /^(INPUT|SELECT|TEXTAREA)$/.test(focus.tagName) ||
			selection && !selection.isCollapsed && main().contains(selection.anchorNode);
	};
	// Puts the fresh part in the place of the old one, and the focus where it was.
	const swap = (fresh) => {
		const address = main().contains(document.activeElement) && document.activeElement.getAttribute("href");
		main().replaceWith(document.adoptNode(fresh));
		const link = [...main().querySelectorAll("a")].find((a) => address && a.getAttribute("href") === address);
		if (link) link.focus();
	};
	const renew = async () => {
		if (!on || document.hidden) return;
		if (busy()) return wait(every);
		try {
			const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
			const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
			if (!answer.ok || !fresh) throw new Error(answer.status);
			if (!busy() && on) swap(fresh);
			tell();
			if (fresh.hasAttribute("data-live")) wait(every);
			else status.textContent = "";
		} catch {
			tell("Not live: no answer");
			wait(later);
		}
	};
	document.addEventListener("visibilitychange", () => wait(0));

	// What an action has done is said once, not again by a reload.
	const address = new URL(location.href);
	const said = address.searchParams.has("done");
	address.searchParams.delete("done");
	if (said) history.replaceState(null, "", address);
	tell();
	wait(said ? read : every);
})();
